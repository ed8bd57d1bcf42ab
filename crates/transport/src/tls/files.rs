//! Certificates and keys from PEM, with errors that name the file.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Pem, Tls};
use crate::config::InvalidConfig;
use crate::error::Source;

/// The bytes of all PEM in the settings.
pub(super) struct Material {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    pub(super) fn read(settings: &Tls) -> Result<Self, InvalidConfig> {
        let ca = settings.ca.as_ref().map(|pem| read(CA, pem)).transpose()?;
        let identity = match &settings.identity {
            Some(identity) => Some((read(CHAIN, &identity.chain)?, read(KEY, &identity.key)?)),
            None => None,
        };
        Ok(Self { ca, identity })
    }

    /// Tells changed files from unchanged ones without a second copy of the key in memory.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ca, &self.identity).hash(&mut hasher);
        hasher.finish()
    }

    /// The own CA's certificates; `None` if there is no own CA.
    pub(super) fn roots(&self, settings: &Tls) -> Result<Option<RootCertStore>, InvalidConfig> {
        let (Some(pem), Some(origin)) = (&self.ca, &settings.ca) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CA, origin, pem)? {
            roots.add(certificate).map_err(|error| unusable(CA, origin, error))?;
        }
        Ok(Some(roots))
    }

    /// The client's chain and key; `None` if it shows nothing.
    pub(super) fn identity(
        &self,
        settings: &Tls,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, InvalidConfig> {
        let (Some((chain, key)), Some(origin)) = (&self.identity, &settings.identity) else {
            return Ok(None);
        };
        let chain = certificates(CHAIN, &origin.chain, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable(KEY, &origin.key, pem_fault(error, "a private key")))?;
        Ok(Some((chain, key)))
    }
}

/// The error of settings that were read and do not fit together or cannot be used.
pub(super) fn unusable(
    what: &'static str,
    origin: &Pem,
    source: impl Into<Source>,
) -> InvalidConfig {
    let origin = match origin {
        Pem::File(path) => path.display().to_string(),
        Pem::Bytes(_) => "the bytes given".to_owned(),
    };
    InvalidConfig::Pem { what, origin, source: source.into() }
}

fn read(what: &'static str, pem: &Pem) -> Result<Vec<u8>, InvalidConfig> {
    let path = match pem {
        Pem::Bytes(bytes) => return Ok(bytes.clone()),
        Pem::File(path) => path,
    };
    let read = || -> io::Result<Vec<u8>> {
        // A pipe would block for ever, before its first byte.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|error| unusable(what, pem, error))
}

fn certificates(
    what: &'static str,
    origin: &Pem,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, InvalidConfig> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unusable(what, origin, "holds no certificate")),
        Err(error) => Err(unusable(what, origin, pem_fault(error, "a certificate"))),
    }
}

fn pem_fault(error: rustls::pki_types::pem::Error, expected: &str) -> Source {
    match error {
        rustls::pki_types::pem::Error::NoItemsFound => format!("holds no PEM of {expected}").into(),
        // Its text may repeat a line of the file, which may be part of a key.
        _ => "is not valid PEM".into(),
    }
}

const CA: &str = "CA certificates";
pub(super) const CHAIN: &str = "client certificate";
const KEY: &str = "client key";

/// Far above any bundle of roots, and a bound on what a wrong path can make us read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
