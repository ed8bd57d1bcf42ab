//! How much memory requests may hold, and how many connections there may be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::process::{Resource, getrlimit};
use spanwire_config::{Config, Extension, MemoryLimiter, Processor};

/// The budget of the process: what the memory limiters that are in use leave, or a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimits {
    bytes: usize,
}

/// Without a memory limiter; where the process may use less than twice that, half of what it may.
const BYTES_DEFAULT: usize = 256 << 20;

/// The memory limits of a configuration: the smallest of its limiters, be they processors of a
/// pipeline or extensions of the service.
pub(crate) fn of(config: &Config) -> MemoryLimits {
    within(config, memory_bytes())
}

fn within(config: &Config, memory: Option<usize>) -> MemoryLimits {
    let service = &config.service;
    let processors = service.pipelines.values().flat_map(|pipeline| &pipeline.processors);
    let processors = processors.filter_map(|id| match config.processors.get(id) {
        Some(Processor::MemoryLimiter(limiter)) => Some(limiter),
        _ => None,
    });
    let extensions = service.extensions.iter().filter_map(|id| match config.extensions.get(id) {
        Some(Extension::MemoryLimiter(limiter)) => Some(limiter),
        _ => None,
    });
    let limits = processors.chain(extensions).filter_map(|limiter| soft_limit(limiter, memory));
    let default = || memory.map_or(BYTES_DEFAULT, |memory| BYTES_DEFAULT.min(memory / 2));
    MemoryLimits { bytes: limits.min().unwrap_or_else(default) }
}

impl MemoryLimits {
    /// What all requests may hold.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }
}

/// Connections that one server of spans may have at once, with a budget of so many bytes.
pub(crate) fn connections_max(budget_bytes: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    connections_within(budget_bytes, files.map_or(usize::MAX, |files| files as usize))
}

/// Two servers, of gRPC and HTTP, leave a quarter of the files that may be open to what goes out, to
/// pages and to files. The least is what one who has set neither limit may expect to work.
fn connections_within(budget_bytes: usize, files_max: usize) -> usize {
    let by_files = files_max / 8 * 3;
    let by_memory = budget_bytes / CONNECTION_BYTES;
    by_files.min(by_memory).clamp(CONNECTIONS_LEAST, CONNECTIONS_MAX)
}

/// What a connection takes beside its requests, so that idle ones take no more than the budget once
/// again: some 50 KiB (as measured for `Builder` in `crates/receiver`).
const CONNECTION_BYTES: usize = 64 << 10;
const CONNECTIONS_LEAST: usize = 256;
const CONNECTIONS_MAX: usize = 1 << 16;

/// What may be held before senders are refused: the limit less the spike, a fifth by default. The
/// spike is in the limit's unit; one in the other unit has no effect, as in the Go Collector
/// (`NewMemoryLimiter` in `internal/memorylimiter/memorylimiter.go`).
fn soft_limit(limiter: &MemoryLimiter, memory: Option<usize>) -> Option<usize> {
    let set = |mib: Option<u64>| mib.filter(|&mib| mib > 0);
    let mib = |mib: u64| usize::try_from(mib << 20).unwrap_or(usize::MAX);
    let (limit, spike) = match (set(limiter.limit_mib), limiter.limit_percentage) {
        (Some(limit), _) => (mib(limit), set(limiter.spike_limit_mib).map(mib)),
        (None, Some(percentage)) => {
            let Some(memory) = memory else {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::warn!(
                        "memory_limiter: limit_percentage has no effect, as the system does not \
                         tell how much memory there is; set limit_mib"
                    );
                });
                return None;
            };
            let share = |percentage: u32| (memory as u128 * u128::from(percentage) / 100) as usize;
            (share(percentage), limiter.spike_limit_percentage.map(share))
        }
        (None, None) => return None,
    };
    let spike = spike.filter(|&spike| spike > 0 && spike < limit).unwrap_or(limit / 5);
    Some(limit - spike)
}

/// Memory that this process may use: the machine's, and no more than its control groups allow.
fn memory_bytes() -> Option<usize> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = || {
        let text = read(Path::new("/proc/meminfo"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: usize = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    machine().into_iter().chain(group_bytes(&groups, read)).min()
}

/// The smallest limit of the control groups that `/proc/self/cgroup` names, and of those above them
/// (cgroups(7)): one group for everything in version 2, one for memory in version 1. A container may
/// see its own group as the root, whatever path it is told.
fn group_bytes(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(list) if list.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let path = PathBuf::from(path.trim_start_matches('/'));
        let limit = |group: &Path| read(&Path::new(root).join(group).join(file));
        // "max", or a number that no machine has, is no limit.
        path.ancestors().filter_map(limit).filter_map(|text| text.trim().parse().ok()).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use spanwire_config::{Compat, Source};

    use super::*;

    const GIB: usize = 1 << 30;
    const MIB: usize = 1 << 20;

    fn mib(limiters: &str, memory: Option<usize>) -> usize {
        let yaml = format!(
            "
receivers: {{ otlp: {{ protocols: {{ grpc: }} }} }}
exporters: {{ nop: }}
{limiters}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [nop] }} }}
"
        );
        let loaded = Config::load(&[Source::Yaml(yaml)], &[], &|_| None, Compat::Strict);
        let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
        within(&config, memory).bytes() / MIB
    }

    fn limited(settings: &str, memory: Option<usize>) -> usize {
        let limiter = format!("{{ check_interval: 1s, {settings} }}");
        let extension = format!(
            "extensions: {{ memory_limiter: {limiter} }}\nservice:\n  extensions: [memory_limiter]"
        );
        mib(&extension, memory)
    }

    #[test]
    fn a_spike_counts_in_the_unit_of_its_limit_and_is_a_fifth_otherwise() {
        let machine = Some(64 * GIB);
        assert_eq!(limited("limit_mib: 1000", machine), 800);
        assert_eq!(limited("limit_mib: 1000, spike_limit_mib: 100", machine), 900);
        assert_eq!(limited("limit_mib: 1000, spike_limit_percentage: 25", machine), 800);
        let half = "limit_percentage: 50";
        assert_eq!(limited(half, Some(GIB)), 409);
        assert_eq!(limited(&format!("{half}, spike_limit_percentage: 10"), Some(GIB)), 409);
        assert_eq!(limited(&format!("{half}, spike_limit_percentage: 25"), Some(GIB)), 256);
        assert_eq!(limited(&format!("{half}, spike_limit_mib: 4000"), Some(GIB)), 409);
    }

    #[test]
    fn without_a_limiter_half_of_a_small_machine_may_be_held() {
        assert_eq!(mib("service:", Some(64 * GIB)), 256);
        assert_eq!(mib("service:", Some(GIB / 4)), 128);
        assert_eq!(mib("service:", None), 256);
        assert_eq!(limited("limit_percentage: 50", None), 256, "there is nothing to take half of");
    }

    #[test]
    fn connections_are_as_many_as_files_and_memory_allow() {
        assert_eq!(connections_within(256 * MIB, 1 << 20), 4096, "memory");
        assert_eq!(connections_within(256 * MIB, 1024), 384, "files");
        assert_eq!(connections_within(64 * GIB, usize::MAX), 65_536);
        assert_eq!(connections_within(MIB, 16), 256);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above_it_counts() {
        let files = |files: &'static [(&str, &str)]| {
            move |path: &Path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, text)| (*text).to_owned())
            }
        };
        let unified = files(&[
            ("/sys/fs/cgroup/system.slice/memory.max", "500\n"),
            ("/sys/fs/cgroup/system.slice/spanwire.service/memory.max", "max\n"),
        ]);
        let own = "0::/system.slice/spanwire.service\n";
        assert_eq!(group_bytes(own, unified), Some(500));
        let container = files(&[("/sys/fs/cgroup/memory.max", "700\n")]);
        assert_eq!(group_bytes("0::/\n", container), Some(700));
        let old = files(&[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "300\n")]);
        let several = "9:cpu,cpuacct:/a\n4:memory:/docker/0123\n0::/a\n";
        assert_eq!(group_bytes(several, old), Some(300));
        assert_eq!(group_bytes("", |_: &Path| None), None);
    }
}
