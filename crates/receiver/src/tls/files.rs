//! Certificates and keys from PEM, with errors that name the file.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use super::{InvalidTls, Pem, ServerTls};

/// The bytes of all PEM in the settings.
pub(super) struct Material {
    chain: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    pub(super) fn read(settings: &ServerTls) -> Result<Self, InvalidTls> {
        Ok(Self {
            chain: read(CHAIN, &settings.chain)?,
            key: read(KEY, &settings.key)?,
            client_ca: settings.client_ca.as_ref().map(|pem| read(CLIENT_CA, pem)).transpose()?,
        })
    }

    /// Tells changed files from unchanged ones without a second copy of the key in memory.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.chain, &self.key, &self.client_ca).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn chain(
        &self,
        settings: &ServerTls,
    ) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
        certificates(CHAIN, &settings.chain, &self.chain)
    }

    pub(super) fn key(&self, settings: &ServerTls) -> Result<PrivateKeyDer<'static>, InvalidTls> {
        PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| pem_fault(KEY, &settings.key, &error, "holds no PEM of a private key"))
    }

    /// `None` where peers need no certificate.
    pub(super) fn client_roots(
        &self,
        settings: &ServerTls,
    ) -> Result<Option<RootCertStore>, InvalidTls> {
        let (Some(pem), Some(origin)) = (&self.client_ca, &settings.client_ca) else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CLIENT_CA, origin, pem)? {
            roots.add(certificate).map_err(|error| unusable(CLIENT_CA, origin, error))?;
        }
        Ok(Some(roots))
    }
}

impl ServerTls {
    /// Whether there is anything to look at again.
    pub(super) fn has_files(&self) -> bool {
        let all = [Some(&self.chain), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().any(|pem| matches!(pem, Pem::File(_)))
    }
}

/// The error of PEM that was read and cannot be used.
pub(super) fn unusable(
    what: &'static str,
    origin: &Pem,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> InvalidTls {
    let origin = match origin {
        Pem::File(path) => path.display().to_string(),
        Pem::Bytes(_) => "the bytes given".to_owned(),
    };
    InvalidTls { what, origin, source: source.into() }
}

fn read(what: &'static str, pem: &Pem) -> Result<Vec<u8>, InvalidTls> {
    let path = match pem {
        Pem::Bytes(bytes) => return Ok(bytes.clone()),
        Pem::File(path) => path,
    };
    let read = || -> io::Result<Vec<u8>> {
        // A pipe would block for ever, before its first byte.
        if !fs::metadata(path)?.is_file() {
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
) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let none = "holds no certificate";
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(certificates) if certificates.is_empty() => Err(unusable(what, origin, none)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(pem_fault(what, origin, &error, none)),
    }
}

fn pem_fault(
    what: &'static str,
    origin: &Pem,
    error: &pem::Error,
    none: &'static str,
) -> InvalidTls {
    match error {
        pem::Error::NoItemsFound => unusable(what, origin, none),
        // Its text may repeat a line of the file, which may be part of a key.
        _ => unusable(what, origin, "is not valid PEM"),
    }
}

pub(super) const CHAIN: &str = "server certificate";
const KEY: &str = "server key";
pub(super) const CLIENT_CA: &str = "client CA certificates";

/// Far above any bundle of roots, and a bound on what a wrong path can make us read.
const FILE_BYTES_MAX: u64 = 4 << 20;
