use std::io;
use std::path::PathBuf;

use spanwire_config::Setting;
use spanwire_receiver::BindError;
use spanwire_transport::InvalidConfig;

/// Why a collector does not start, or a reload is not made: a setting, and what is wrong with it.
///
/// [`Places`](spanwire_config::Places) shows it with the line that the setting is in.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {endpoint}")]
    Listen {
        /// Where the address is set.
        setting: Setting,
        /// As in the configuration.
        endpoint: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Two components are to listen where only one can.
    #[error("{setting}: {other} is to listen on {endpoint} already")]
    Twice {
        /// Where the address is set.
        setting: Setting,
        /// Where that of the other one is.
        other: Setting,
        /// As in the configuration.
        endpoint: String,
    },
    /// A receiver cannot be made.
    #[error("{setting}")]
    Receiver {
        /// Of one of its protocols, or nearer to what is wrong.
        setting: Setting,
        /// What is wrong.
        source: BindError,
    },
    /// A destination cannot be made.
    #[error("{setting}")]
    Exporter {
        /// Of an exporter, or nearer to what is wrong.
        setting: Setting,
        /// What is wrong.
        source: InvalidConfig,
    },
    /// A file cannot be opened.
    #[error("{setting}: cannot open {path}", path = path.display())]
    File {
        /// The path of a file.
        setting: Setting,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A value cannot be used.
    #[error("{setting}: {rule}")]
    Value {
        /// Where it is set.
        setting: Setting,
        /// Why.
        rule: String,
    },
}

impl StartError {
    /// The setting that is to blame.
    #[must_use]
    pub fn setting(&self) -> &Setting {
        match self {
            Self::Listen { setting, .. }
            | Self::Twice { setting, .. }
            | Self::Receiver { setting, .. }
            | Self::Exporter { setting, .. }
            | Self::File { setting, .. }
            | Self::Value { setting, .. } => setting,
        }
    }

    /// What to do about it, if there is something to say.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        const PEM: &str = "what is read is PEM, text from -----BEGIN to -----END; a path is relative \
                           to the working directory";
        let help = match self {
            Self::Listen { endpoint, source, .. } => return of_listen(endpoint, source),
            Self::Twice { .. } => "give one of them another port",
            Self::Receiver { source: BindError::Tls(_), .. } => PEM,
            Self::Exporter { source, .. } => match source {
                InvalidConfig::Pem { .. } => PEM,
                InvalidConfig::Roots { .. } => {
                    "name an authority in tls::ca_file, or install the system's certificates"
                }
                InvalidConfig::ServerName { .. } => "it is a host name or an IP address",
                _ => return None,
            },
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "the folder must be there, only the file is created"
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "this user must be allowed to write there"
            }
            Self::Receiver { .. } | Self::File { .. } | Self::Value { .. } => return None,
        };
        Some(help.to_owned())
    }
}

fn of_listen(endpoint: &str, source: &io::Error) -> Option<String> {
    let port = endpoint.rsplit_once(':').map_or(endpoint, |(_, port)| port);
    Some(match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "`ss -ltnp 'sport = :{port}'` shows who has the port; stop that, or set another one here"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address; 0.0.0.0 is every address it has".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => return None,
    })
}
