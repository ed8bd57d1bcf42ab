use proptest::prelude::*;
use spanwire_model::{
    Attributes, Detected, InvalidResourceAttributes, Resource, Surroundings, Value,
};

const ID: &str = "0f3deade416514b65143bdb917f86c290bf21b176d70d8ad8c4992469fdb28e6";
const OTHER_ID: &str = "1193d58b89b1704f18fbf9ee950b9e652fe5e1212345f9a1c161cc6782ccc0d7";
const UID: &str = "be2cead1-f604-40bd-a52d-05f47d1ae7ef";

fn detected(surroundings: &Surroundings, env: &[(&str, &str)]) -> Detected {
    surroundings.resource(|name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| String::from(*value))
    })
}

fn texts(surroundings: &Surroundings, env: &[(&str, &str)], keys: &[&str]) -> Vec<String> {
    let attributes = detected(surroundings, env).resource.attributes;
    let text = |key: &&str| match attributes.get(key) {
        Some(Value::String(text)) => text.to_string(),
        None => String::from("-"),
        Some(other) => format!("{other:?}"),
    };
    keys.iter().map(text).collect()
}

fn container_id(cgroup: &str, mountinfo: &str) -> String {
    let surroundings = Surroundings {
        cgroup: cgroup.into(),
        mountinfo: mountinfo.into(),
        ..Surroundings::default()
    };
    texts(&surroundings, &[], &["container.id"]).remove(0)
}

fn parsed(text: &str) -> Result<Vec<(String, String)>, InvalidResourceAttributes> {
    Ok(Resource::parse_attributes(text)?
        .iter()
        .map(|entry| match &entry.value {
            Value::String(value) => (entry.key.to_string(), value.to_string()),
            other => panic!("not a string: {other:?}"),
        })
        .collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect()
}

#[test]
fn code_goes_over_environment_and_environment_over_detection() {
    let surroundings = Surroundings { hostname: "detected".into(), ..Surroundings::default() };
    let env =
        [("OTEL_RESOURCE_ATTRIBUTES", "host.name=env,team=env,deployment.environment.name=prod")];
    let found = detected(&surroundings, &env).resource;
    let code = Resource {
        attributes: [("team", "code"), ("service.version", "1.2")].into_iter().collect(),
        ..Resource::default()
    };
    let merged = found.merge(code);
    for (key, value) in [
        ("host.name", "env"),
        ("team", "code"),
        ("service.version", "1.2"),
        ("deployment.environment.name", "prod"),
    ] {
        assert_eq!(merged.attributes.get(key), Some(&Value::from(value)), "{key}");
    }
    assert_eq!(merged.schema_url.as_str(), "https://opentelemetry.io/schemas/1.44.0");
}

#[test]
fn the_service_is_named_by_its_variable_then_by_the_attributes_then_by_the_program() {
    let program = Surroundings { executable: "shop".into(), ..Surroundings::default() };
    let name = |surroundings, env: &[_]| texts(surroundings, env, &["service.name"]).remove(0);
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute");
    assert_eq!(name(&program, &[attributes, ("OTEL_SERVICE_NAME", "variable")]), "variable");
    assert_eq!(name(&program, &[attributes, ("OTEL_SERVICE_NAME", "")]), "attribute");
    assert_eq!(name(&program, &[("OTEL_RESOURCE_ATTRIBUTES", "")]), "unknown_service:shop");
    assert_eq!(name(&Surroundings::default(), &[]), "unknown_service");
}

#[test]
fn attributes_of_the_environment_are_percent_decoded() {
    for (text, expected) in [
        ("", &[][..]),
        ("a=1", &[("a", "1")]),
        (" a = 1 ,\tb=2,", &[("a", "1"), ("b", "2")]),
        ("a=1%2C2%3d3,%61%2Cb=%20x%20", &[("a", "1,2=3"), ("a,b", " x ")]),
        ("a=%e2%82%AC,b=caf\u{e9}", &[("a", "€"), ("b", "caf\u{e9}")]),
        ("a=,b=c=d==", &[("a", ""), ("b", "c=d==")]),
        ("a=1,b=2,a=3", &[("a", "3"), ("b", "2")]),
    ] {
        assert_eq!(parsed(text), Ok(pairs(expected)), "{text}");
    }
}

#[test]
fn one_bad_member_discards_all_of_the_environments_attributes_and_is_told() {
    use InvalidResourceAttributes::{Encoding, Pair, TooMany};
    for (text, error) in [
        ("a=1,b", Pair { number: 2 }),
        ("=1", Pair { number: 1 }),
        (" =1", Pair { number: 1 }),
        ("a=1,,b=100%", Encoding { number: 2 }),
        ("a=%4", Encoding { number: 1 }),
        ("a=%zz", Encoding { number: 1 }),
        ("a=%+1", Encoding { number: 1 }),
        ("a=%ff", Encoding { number: 1 }),
        (&"a=1,".repeat(1001), TooMany),
    ] {
        assert_eq!(parsed(text), Err(error), "{text}");
        let env = [("OTEL_RESOURCE_ATTRIBUTES", text), ("OTEL_SERVICE_NAME", "shop")];
        let found = detected(&Surroundings::default(), &env);
        assert_eq!(found.invalid, Some(error));
        assert_eq!(found.resource.attributes.get("a"), None);
        assert_eq!(found.resource.attributes.get("service.name"), Some(&Value::from("shop")));
    }
    assert_eq!(TooMany.to_string(), "more than 1000 resource attributes");
}

#[test]
fn the_container_is_read_from_the_cgroup_of_each_runtime() {
    for cgroup in [
        format!("12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n"),
        format!("0::/docker/{ID}/init.scope"),
        format!("0::/system.slice/docker-{ID}.scope"),
        format!("0::/machine.slice/libpod-{ID}.scope/container"),
        format!("1:name=systemd:/kubepods/burstable/pod{UID}/{ID}"),
        format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope",
            UID.replace('-', "_")
        ),
        format!("0::/kubepods.slice/x.slice/crio-{ID}.scope"),
        format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
        format!("0::/docker/{OTHER_ID}/docker/{ID}"),
    ] {
        assert_eq!(container_id(&cgroup, ""), ID, "{cgroup}");
    }
}

#[test]
fn what_is_no_container_is_not_taken_for_one() {
    for cgroup in [
        "",
        "0::/",
        "0::/user.slice/user-1000.slice/session-3.scope",
        "garbage",
        "a:b",
        &format!("0::/docker/{}", &ID[1..]),
        &format!("0::/docker/{}", ID.to_uppercase()),
    ] {
        assert_eq!(container_id(cgroup, ""), "-", "{cgroup}");
    }
    let on_the_host =
        format!("36 24 0:30 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw");
    assert_eq!(container_id("0::/init.scope", &on_the_host), "-");
}

#[test]
fn mounts_tell_the_container_except_in_kubernetes_where_they_tell_the_sandbox() {
    let docker = format!(
        "659 450 0:183 / / rw - overlay overlay rw\n\
         1290 659 254:1 /docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n"
    );
    let podman = format!(
        "9 8 0:5 /containers/overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs t rw"
    );
    assert_eq!(container_id("0::/", &docker), ID);
    assert_eq!(container_id("0::/", &podman), "-", "the first folder of that name has no id");
    let podman = podman.replace("/containers/overlay", "/overlay");
    assert_eq!(container_id("0::/", &podman), ID);

    let pod =
        Surroundings { mountinfo: docker, namespace: "shop".into(), ..Surroundings::default() };
    assert_eq!(texts(&pod, &[], &["container.id"]), ["-"]);
}

#[test]
fn the_machines_id_is_the_hosts_only_outside_of_containers() {
    let mut surroundings = Surroundings { machine_id: "abc\n".into(), ..Surroundings::default() };
    assert_eq!(texts(&surroundings, &[], &["host.id"]), ["abc"]);
    surroundings.cgroup = format!("0::/docker/{ID}");
    assert_eq!(texts(&surroundings, &[], &["host.id"]), ["-"]);
}

#[test]
fn a_pod_is_known_by_its_cgroup_its_mounts_and_the_downward_api() {
    let keys = [
        "k8s.namespace.name",
        "k8s.pod.uid",
        "k8s.pod.name",
        "k8s.node.name",
        "k8s.container.name",
    ];
    let pod = Surroundings {
        namespace: "shop\n".into(),
        cgroup: format!(
            "0::/kubepods.slice/kubepods-burstable-pod{}.slice/x",
            UID.replace('-', "_")
        ),
        ..Surroundings::default()
    };
    let env = [
        ("POD_NAME", "cart-5f7"),
        ("NODE_NAME", "second choice"),
        ("K8S_NODE_NAME", "node-1"),
        ("CONTAINER_NAME", "cart"),
    ];
    assert_eq!(texts(&pod, &env, &keys), ["shop", UID, "cart-5f7", "node-1", "cart"]);

    let mounted = Surroundings {
        mountinfo: format!(
            "9 8 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw - ext4 d rw"
        ),
        ..Surroundings::default()
    };
    let env = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("POD_NAMESPACE", "web")];
    assert_eq!(texts(&mounted, &env, &keys), ["web", UID, "-", "-", "-"]);
}

#[test]
fn outside_of_kubernetes_no_variable_makes_a_pod() {
    let env = [("POD_NAME", "x"), ("NODE_NAME", "y"), ("CONTAINER_NAME", "z")];
    let attributes = detected(&Surroundings::default(), &env).resource.attributes;
    assert!(attributes.iter().all(|entry| !entry.key.starts_with("k8s.")));
}

#[test]
fn host_process_and_system_have_their_conventional_names() {
    let surroundings = Surroundings {
        os: "macos".into(),
        arch: "x86_64".into(),
        executable: "shop".into(),
        process_id: 42,
        hostname: " \n".into(),
        os_release: "# comment\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='13'\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"\n".into(),
        ..Surroundings::default()
    };
    let keys = [
        "os.type",
        "host.arch",
        "process.executable.name",
        "process.pid",
        "host.name",
        "os.name",
        "os.version",
        "os.description",
        "telemetry.sdk.name",
        "telemetry.sdk.language",
        "host.id",
    ];
    let expected = [
        "darwin",
        "amd64",
        "shop",
        "Int(42)",
        "from env",
        "Debian GNU/Linux",
        "13",
        "a \"b\" $c",
        "spanwire",
        "rust",
        "-",
    ];
    assert_eq!(texts(&surroundings, &[("HOSTNAME", "from env")], &keys), expected);
}

#[test]
fn the_instance_is_a_random_uuid_of_version_4() {
    for (instance, uuid) in [
        (0, "00000000-0000-4000-8000-000000000000"),
        (u128::MAX, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
    ] {
        let surroundings = Surroundings { instance, ..Surroundings::default() };
        assert_eq!(texts(&surroundings, &[], &["service.instance.id"]), [uuid]);
    }
    assert_ne!(Surroundings::read().instance, Surroundings::read().instance);
}

#[test]
fn this_very_process_is_detected() {
    let Detected { resource, invalid } = Resource::detect(|_| None);
    assert_eq!(invalid, None);
    let pid = resource.attributes.get("process.pid");
    assert_eq!(pid, Some(&Value::Int(i64::from(std::process::id()))));
    let name = resource.attributes.get("service.name");
    assert!(
        matches!(name, Some(Value::String(name)) if name.starts_with("unknown_service:behaviour"))
    );
}

#[test]
fn resources_of_different_schemas_merge_into_one_without() {
    let schema = |url: &'static str| Resource { schema_url: url.into(), ..Resource::default() };
    for (own, over, merged) in [("", "b", "b"), ("a", "", "a"), ("a", "a", "a"), ("a", "b", "")] {
        assert_eq!(schema(own).merge(schema(over)).schema_url.as_str(), merged);
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

proptest! {
    #[test]
    fn whatever_is_percent_encoded_comes_back(entries in proptest::collection::btree_map(".{1,6}", ".{0,9}", 0..9)) {
        let text: Vec<_> =
            entries.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        prop_assert_eq!(parsed(&text.join(",")), Ok(entries.into_iter().collect()));
    }

    #[test]
    fn no_text_in_file_or_variable_makes_detection_fail(
        text in "[a-f0-9:/_.%=,\" \\n-]{0,80}|([ \\n:/]|pods?|containers/|NAME=|\"|0f3d){0,12}|.{0,40}",
    ) {
        let surroundings = Surroundings {
            hostname: text.clone(),
            os_release: text.clone(),
            cgroup: text.clone(),
            mountinfo: text.clone(),
            namespace: text.clone(),
            ..Surroundings::default()
        };
        let found = surroundings.resource(|_| Some(text.clone()));
        let unique = found.resource.attributes.iter().cloned().map(|e| (e.key, e.value));
        prop_assert_eq!(unique.collect::<Attributes>().len(), found.resource.attributes.len());
    }
}
