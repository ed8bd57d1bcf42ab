//! What the texts of [`Surroundings`](crate::Surroundings) mean. Pure, and total: a text that is not
//! understood yields nothing.

/// The id of the innermost container in a line of `/proc/self/cgroup`, which ends in a path such as
/// `/docker/<id>`, `/kubepods.slice/…/cri-containerd-<id>.scope` or `/machine.slice/libpod-<id>.scope`.
pub(super) fn container_id_in_cgroup(line: &str) -> Option<&str> {
    let path = line.splitn(3, ':').nth(2)?;
    path.rsplit('/').find_map(|segment| {
        let name = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = name.rsplit(['-', ':']).next()?;
        is_container_id(id).then_some(id)
    })
}

/// The id in a line of `/proc/self/mountinfo` about a file that Docker or Podman puts into each
/// container, such as `/var/lib/docker/containers/<id>/hostname`.
pub(super) fn container_id_in_mount(line: &str) -> Option<&str> {
    let source = line.split(' ').nth(3)?;
    let (_, rest) = source.split_once("containers/")?;
    let id = rest.split('/').next()?;
    is_container_id(id).then_some(id)
}

/// The pod's UID in a line of either file: `…/pod<uid>/…`, `…-pod<uid with underscores>.slice` in
/// cgroups, `…/pods/<uid>/etc-hosts` in mounts.
pub(super) fn pod_uid(line: &str) -> Option<String> {
    line.match_indices("pod").find_map(|(at, pod)| {
        let rest = &line[at + pod.len()..];
        let uid = rest.strip_prefix("s/").unwrap_or(rest).get(..UUID_LENGTH)?.replace('_', "-");
        is_uuid(&uid).then_some(uid)
    })
}

/// A field of `/etc/os-release`: shell assignments, quoted or not (`os-release(5)`).
pub(super) fn os_release(text: &str, field: &str) -> String {
    let value = text
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .find_map(|(key, value)| (key == field).then_some(value))
        .unwrap_or_default();
    match value.as_bytes() {
        [b'"', .., b'"'] | [b'\'', .., b'\''] => {
            let mut unquoted = String::new();
            let mut chars = value[1..value.len() - 1].chars();
            while let Some(char) = chars.next() {
                // A backslash stands before a character that the shell would take as its own.
                unquoted.extend(if char == '\\' { chars.next() } else { Some(char) });
            }
            unquoted
        }
        _ => String::from(value),
    }
}

/// The values of `host.arch` (semantic conventions v1.44); others pass as they are.
pub(super) fn host_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// The values of `os.type` (semantic conventions v1.44); others pass as they are.
pub(super) fn os_type(os: &str) -> &str {
    match os {
        "macos" | "ios" => "darwin",
        "dragonfly" => "dragonflybsd",
        "illumos" => "solaris",
        "android" => "linux",
        other => other,
    }
}

pub(super) fn percent_decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let [high, low, after @ ..] = after else { return None };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    text.len() == UUID_LENGTH
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A random UUID, version 4, of these bits (RFC 9562, section 5.4).
pub(super) fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

const UUID_LENGTH: usize = 36;
