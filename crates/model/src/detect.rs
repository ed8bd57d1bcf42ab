mod parse;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::Read;
use std::path::Path;

use self::parse::{
    container_id_in_cgroup, container_id_in_mount, host_arch, os_release, os_type, percent_decoded,
    pod_uid, uuid,
};
use crate::{Attributes, Resource, Text, Value};

/// What a process can learn about itself and where it runs, as it was read: texts that are empty
/// where there was nothing to read.
///
/// Reading and understanding are kept apart, so that a cgroup of a machine that nobody has at hand
/// is a string in a test.
///
/// ```
/// use spanwire_model::{Surroundings, Value};
///
/// let surroundings = Surroundings { hostname: "web-1\n".into(), ..Surroundings::default() };
/// let detected = surroundings.resource(|name| match name {
///     "OTEL_SERVICE_NAME" => Some("shop".into()),
///     "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=other,team=check%20out".into()),
///     _ => None,
/// });
/// let attributes = detected.resource.attributes;
/// assert_eq!(attributes.get("service.name"), Some(&Value::from("shop")));
/// assert_eq!(attributes.get("team"), Some(&Value::from("check out")));
/// assert_eq!(attributes.get("host.name"), Some(&Value::from("web-1")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The operating system, as [`std::env::consts::OS`] names it.
    pub os: String,
    /// The processor's architecture, as [`std::env::consts::ARCH`] names it.
    pub arch: String,
    /// File name of the running program.
    pub executable: String,
    /// The process's number.
    pub process_id: u32,
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `/etc/os-release`.
    pub os_release: String,
    /// `/proc/self/cgroup`.
    pub cgroup: String,
    /// `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// `/var/run/secrets/kubernetes.io/serviceaccount/namespace`.
    pub namespace: String,
    /// A random number that no other process has.
    pub instance: u128,
}

/// A resource put together from what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Detected {
    /// The resource.
    pub resource: Resource,
    /// Why `OTEL_RESOURCE_ATTRIBUTES` was left aside as a whole, where it was; worth a warning.
    pub invalid: Option<InvalidResourceAttributes>,
}

/// Why a text is not a list of resource attributes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResourceAttributes {
    /// A member of the list is not `key=value`.
    #[error("resource attribute {number} is not key=value")]
    Pair {
        /// Which one, counted from 1.
        number: usize,
    },
    /// A member has a `%` without two hex digits after it, or does not decode to UTF-8.
    #[error("resource attribute {number} is not percent-encoded UTF-8")]
    Encoding {
        /// Which one, counted from 1.
        number: usize,
    },
    /// More members than [`Resource::ATTRIBUTES_FROM_ENV_MAX`].
    #[error("more than {} resource attributes", Resource::ATTRIBUTES_FROM_ENV_MAX)]
    TooMany,
}

impl Resource {
    /// Most attributes taken from `OTEL_RESOURCE_ATTRIBUTES`.
    pub const ATTRIBUTES_FROM_ENV_MAX: usize = 1_000;

    /// What this process can tell about itself: what its machine shows, and over that what its
    /// environment says. What the code sets goes over both, by [`merge`](Self::merge).
    ///
    /// ```
    /// use spanwire_model::{Resource, Value};
    ///
    /// let detected = Resource::detect(|name| std::env::var(name).ok());
    /// let code = Resource {
    ///     attributes: [("service.name", "shop"), ("service.version", "1.4.2")].into_iter().collect(),
    ///     ..Resource::default()
    /// };
    /// let resource = detected.resource.merge(code);
    /// assert_eq!(resource.attributes.get("service.name"), Some(&Value::from("shop")));
    /// ```
    ///
    /// `env` looks up an environment variable, so that a test needs none.
    ///
    /// Cost: up to seven small files are read, at most 64 KiB of each; call it once, at start.
    /// Whatever can't be read is left out; nothing here fails or panics.
    ///
    /// Source: "Resource SDK" in `resource/sdk.md`, opentelemetry-specification v1.60, and the
    /// resource attributes of semantic conventions v1.44.
    pub fn detect(env: impl Fn(&str) -> Option<String>) -> Detected {
        Surroundings::read().resource(env)
    }

    /// This resource with the attributes of another one over its own.
    ///
    /// Of two schemas the non-empty one stays; where they differ there is none, as no single one
    /// describes all the attributes.
    ///
    /// Source: "Merge" in `resource/sdk.md`, opentelemetry-specification v1.60.
    #[must_use]
    pub fn merge(mut self, over: Self) -> Self {
        if self.schema_url.is_empty() {
            self.schema_url = over.schema_url;
        } else if !over.schema_url.is_empty() && over.schema_url != self.schema_url {
            self.schema_url = Text::default();
        }
        let (attributes, dropped) = over.attributes.into_parts();
        for entry in attributes {
            self.attributes.set(entry.key, entry.value);
        }
        self.attributes.set_dropped(self.attributes.dropped().saturating_add(dropped));
        self
    }

    /// Reads the value of `OTEL_RESOURCE_ATTRIBUTES`: `key=value` pairs separated by commas, both
    /// percent-encoded. Spaces around them and empty members are passed over; of equal keys the
    /// last one wins.
    ///
    /// # Errors
    ///
    /// [`InvalidResourceAttributes`]; the specification wants all of the text discarded then.
    ///
    /// Source: "Specifying resource information via an environment variable" in
    /// `resource/sdk.md`, opentelemetry-specification v1.60.
    pub fn parse_attributes(text: &str) -> Result<Attributes, InvalidResourceAttributes> {
        let mut attributes = Attributes::new();
        let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
        for (member, number) in members.zip(1..) {
            if number > Self::ATTRIBUTES_FROM_ENV_MAX {
                return Err(InvalidResourceAttributes::TooMany);
            }
            let pair = member.split_once('=').map(|(key, value)| (key.trim_end(), value));
            let Some((key @ [_, ..], value)) = pair.map(|(k, v)| (k.as_bytes(), v)) else {
                return Err(InvalidResourceAttributes::Pair { number });
            };
            let decode = |text: &[u8]| {
                percent_decoded(text).ok_or(InvalidResourceAttributes::Encoding { number })
            };
            attributes.set(decode(key)?, decode(value.trim_start().as_bytes())?);
        }
        Ok(attributes)
    }
}

impl Surroundings {
    /// Reads them. Cost and failures as for [`Resource::detect`].
    #[must_use]
    pub fn read() -> Self {
        let executable = std::env::current_exe().unwrap_or_default();
        let executable = executable.file_name().unwrap_or_default().to_string_lossy();
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            // Linux adds this to the name of a program that was replaced while it runs.
            executable: executable.trim_end_matches(" (deleted)").into(),
            process_id: std::process::id(),
            hostname: read_text("/proc/sys/kernel/hostname"),
            machine_id: read_text("/etc/machine-id"),
            os_release: read_text("/etc/os-release"),
            cgroup: read_text("/proc/self/cgroup"),
            mountinfo: read_text("/proc/self/mountinfo"),
            namespace: read_text("/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
            instance: random(),
        }
    }

    /// What they say, with what the environment says over it.
    ///
    /// `OTEL_SERVICE_NAME` goes over `OTEL_RESOURCE_ATTRIBUTES`; a service without a name is
    /// `unknown_service:` and its program's name.
    pub fn resource(&self, env: impl Fn(&str) -> Option<String>) -> Detected {
        // An empty variable counts as unset ("Parsing empty value" in `configuration/common.md`).
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut found = Found(Attributes::new());
        self.service(&mut found);
        found.set(TELEMETRY_SDK_NAME, "spanwire");
        found.set(TELEMETRY_SDK_LANGUAGE, "rust");
        found.set(TELEMETRY_SDK_VERSION, env!("CARGO_PKG_VERSION"));
        self.process(&mut found);
        self.host(&mut found, &env);
        self.kubernetes(&mut found, &env);

        let mut attributes = found.0;
        let invalid = match env("OTEL_RESOURCE_ATTRIBUTES").map(|v| Resource::parse_attributes(&v))
        {
            None => None,
            Some(Err(error)) => Some(error),
            Some(Ok(over)) => {
                for entry in over.into_parts().0 {
                    attributes.set(entry.key, entry.value);
                }
                None
            }
        };
        if let Some(name) = env("OTEL_SERVICE_NAME") {
            attributes.set(SERVICE_NAME, name);
        }
        let resource = Resource { attributes, schema_url: Text::from_static(SCHEMA_URL) };
        Detected { resource, invalid }
    }

    fn service(&self, found: &mut Found) {
        match self.executable.as_str() {
            "" => found.set(SERVICE_NAME, "unknown_service"),
            executable => found.set(SERVICE_NAME, format!("unknown_service:{executable}")),
        }
        found.set(SERVICE_INSTANCE_ID, uuid(self.instance));
    }

    fn process(&self, found: &mut Found) {
        if self.process_id != 0 {
            found.set(PROCESS_PID, i64::from(self.process_id));
        }
        found.set_text(PROCESS_EXECUTABLE_NAME, &self.executable);
        found.set(PROCESS_RUNTIME_NAME, "rust");
    }

    fn host(&self, found: &mut Found, env: &impl Fn(&str) -> Option<String>) {
        let named = Some(self.hostname.clone()).filter(|name| !name.trim().is_empty());
        let name = named.or_else(|| env("HOSTNAME")).or_else(|| env("COMPUTERNAME"));
        found.set_text(HOST_NAME, &name.unwrap_or_default());
        found.set_text(HOST_ARCH, host_arch(&self.arch));
        found.set_text(OS_TYPE, os_type(&self.os));
        found.set_text(OS_NAME, &os_release(&self.os_release, "NAME"));
        found.set_text(OS_VERSION, &os_release(&self.os_release, "VERSION_ID"));
        found.set_text(OS_DESCRIPTION, &os_release(&self.os_release, "PRETTY_NAME"));
        match self.container_id(env) {
            Some(id) => found.set_text(CONTAINER_ID, id),
            // Within a container the file is the image's, the same on every machine.
            None => found.set_text(HOST_ID, &self.machine_id),
        }
    }

    /// The container's id where it is certain.
    ///
    /// The cgroup names the process's own container. The mounts name, in Kubernetes, the pod's
    /// sandbox, which is another container, so they count only elsewhere.
    fn container_id(&self, env: &impl Fn(&str) -> Option<String>) -> Option<&str> {
        self.cgroup.lines().find_map(container_id_in_cgroup).or_else(|| {
            let mounts = if self.in_kubernetes(env) { "" } else { self.mountinfo.as_str() };
            mounts.lines().find_map(container_id_in_mount)
        })
    }

    fn in_kubernetes(&self, env: &impl Fn(&str) -> Option<String>) -> bool {
        env("KUBERNETES_SERVICE_HOST").is_some()
            || !self.namespace.is_empty()
            || self.cgroup.contains("kubepods")
    }

    /// What the kubelet shows, and the names that manifests commonly give to the fields of the
    /// downward API. The pod's name is not guessed from the host's: with `hostNetwork` it would be
    /// the node's.
    fn kubernetes(&self, found: &mut Found, env: &impl Fn(&str) -> Option<String>) {
        if !self.in_kubernetes(env) {
            return;
        }
        found.set_text("k8s.namespace.name", &self.namespace);
        let paths = self.cgroup.lines().chain(self.mountinfo.lines());
        found.set_text("k8s.pod.uid", &paths.filter_map(pod_uid).next().unwrap_or_default());
        for (key, names) in DOWNWARD_API {
            if let Some(value) = names.iter().find_map(|name| env(name)) {
                found.set_text(key, &value);
            }
        }
    }
}

/// Attributes of which the empty ones are left out.
struct Found(Attributes);

impl Found {
    fn set(&mut self, key: &'static str, value: impl Into<Value<'static>>) {
        self.0.set(key, value);
    }

    fn set_text(&mut self, key: &'static str, value: &str) {
        let value = value.trim();
        if !value.is_empty() {
            self.0.set(key, String::from(value));
        }
    }
}

/// 128 bits out of the standard library's hash keys, which it takes from the operating system.
/// They only need to differ between processes, not to be secret.
fn random() -> u128 {
    let keys = RandomState::new();
    u128::from(keys.hash_one(0)) << 64 | u128::from(keys.hash_one(1))
}

/// The start of a file as text; empty where it can't be read.
fn read_text(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is as good as a shorter file.
    let _partial =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Much more than any of these files has; they are generated by the kernel or written by hand.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Attributes of Kubernetes and the variables that manifests give them in, the most usual first.
/// Those that begin with `OTEL_` are set by the OpenTelemetry operator.
const DOWNWARD_API: [(&str, &[&str]); 7] = [
    ("k8s.namespace.name", &["K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "POD_NAMESPACE"]),
    ("k8s.pod.name", &["K8S_POD_NAME", "POD_NAME", "OTEL_RESOURCE_ATTRIBUTES_POD_NAME"]),
    ("k8s.pod.uid", &["K8S_POD_UID", "POD_UID", "OTEL_RESOURCE_ATTRIBUTES_POD_UID"]),
    ("k8s.container.name", &["K8S_CONTAINER_NAME", "CONTAINER_NAME"]),
    ("k8s.node.name", &["K8S_NODE_NAME", "NODE_NAME", "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"]),
    ("k8s.deployment.name", &["K8S_DEPLOYMENT_NAME"]),
    ("k8s.cluster.name", &["K8S_CLUSTER_NAME"]),
];

const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

// Names of semantic conventions v1.44.
const CONTAINER_ID: &str = "container.id";
const HOST_ARCH: &str = "host.arch";
const HOST_ID: &str = "host.id";
const HOST_NAME: &str = "host.name";
const OS_DESCRIPTION: &str = "os.description";
const OS_NAME: &str = "os.name";
const OS_TYPE: &str = "os.type";
const OS_VERSION: &str = "os.version";
const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
const PROCESS_PID: &str = "process.pid";
const PROCESS_RUNTIME_NAME: &str = "process.runtime.name";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
const SERVICE_NAME: &str = "service.name";
const TELEMETRY_SDK_LANGUAGE: &str = "telemetry.sdk.language";
// The name `opentelemetry` is reserved for the OpenTelemetry project's own SDKs
// (`resource.md`, "Telemetry SDK").
const TELEMETRY_SDK_NAME: &str = "telemetry.sdk.name";
const TELEMETRY_SDK_VERSION: &str = "telemetry.sdk.version";
