//! The files of `deploy` and the deployment guide, each checked by its own tool.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    deployment::{deploy, passes},
    helpers::settings,
    process::PROGRAM,
    real_parts::{are_here, blocks},
};

/// The addresses that the gates of `deploy` trust, as its files set them.
const TRUSTED_PROXIES: &str = "172.30.0.2/32";

/// The documents of a YAML text. The package of docker-compose includes a parser.
fn yaml(text: &str) -> Vec<Value> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    let Output { stdout, stderr, .. } = Command::new("/usr/bin/python3")
        .args(["-c", read, text])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{said}"))
}

pub(crate) fn compose() -> Value {
    yaml(&fs::read_to_string(deploy("compose.yaml")).unwrap()).remove(0)
}

/// The object of this kind in `deploy/kubernetes.yaml`.
fn kubernetes(kind: &str) -> Value {
    let objects = yaml(&fs::read_to_string(deploy("kubernetes.yaml")).unwrap());
    let found = objects.into_iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn docker_compose_and_kubernetes_accept_their_files() {
    if are_here(&["docker-compose"]) {
        passes(
            Command::new("docker-compose")
                .arg("-f")
                .arg(deploy("compose.yaml"))
                .args(["config", "-q"]),
        );
    }
    if are_here(&["kubernetes-validate"]) {
        passes(
            Command::new("kubernetes-validate")
                .arg("--strict")
                .arg(deploy("kubernetes.yaml")),
        );
    }
}

#[test]
fn the_config_of_the_deployment_is_valid_and_the_same_in_every_file() {
    if !are_here(&["docker-compose"]) {
        return;
    }
    let config = fs::read_to_string(deploy("gate.toml")).unwrap();
    assert_eq!(kubernetes("ConfigMap")["data"]["config.toml"], config);

    // The secrets that the guide creates are those that the config names, and are valid.
    let folder = tempfile::tempdir().unwrap();
    let [script] = &blocks("docs/deployment.md", "sh")[..] else {
        panic!("one block")
    };
    passes(
        Command::new("bash")
            .args(["-ec", &format!("umask 077\n{script}")])
            .current_dir(folder.path())
            .env("IMGWIRE_API_KEY", "sk_a_key"),
    );
    let secrets = folder.path().join("deploy/secrets");
    let created: BTreeSet<_> = fs::read_dir(&secrets)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&secrets), 0o700);
    for name in &created {
        assert_eq!(mode(&secrets.join(name)) & 0o444, 0o444, "{name}");
    }
    let mounted = compose()["secrets"].as_object().unwrap().clone();
    assert_eq!(created, mounted.keys().cloned().collect());
    let config = config.replace("/run/secrets", secrets.to_str().unwrap());
    let environment = |name: &str| (name == "TRUSTED_PROXIES").then(|| TRUSTED_PROXIES.to_owned());
    let loaded = settings::load("gate.toml", &config, &environment);
    loaded.unwrap_or_else(|faults| panic!("{faults}"));
}

/// The most memory that the gate takes, in bytes, with so many connections on each listener.
fn most_memory(max_connections: u64) -> u64 {
    64_000_000 + 2 * max_connections * 16 * 1024
}

#[test]
fn the_memory_limits_of_the_deployments_are_above_what_the_gate_can_take() {
    if !are_here(&["docker-compose"]) {
        return;
    }
    const MIB: u64 = 1024 * 1024;
    let config = fs::read_to_string(deploy("gate.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let connections = config["server"]["max_connections"].as_integer().unwrap();
    let shared = most_memory(connections.try_into().unwrap());

    let deployment = kubernetes("Deployment");
    let gate = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(gate["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(compose()["services"]["gate-1"]["mem_limit"], "256m");
    assert!(shared < 256 * MIB, "{shared}");

    let unit = fs::read_to_string(deploy("imgwire-gate.service")).unwrap();
    assert!(unit.contains("\nMemoryMax=448M\n"));
    assert!(most_memory(10_000) < 448 * MIB);
}

#[test]
fn every_deployment_waits_longer_than_a_gate_takes_to_drain() {
    if !are_here(&["docker-compose"]) {
        return;
    }
    let config = fs::read_to_string(deploy("gate.toml")).unwrap();
    assert!(config.contains("shutdown_delay = \"5s\""));
    // And the default shutdown_grace.
    let longest = 5 + 30;
    let deployment = kubernetes("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > longest);
    assert_eq!(compose()["services"]["gate-1"]["stop_grace_period"], "40s");
    let unit = fs::read_to_string(deploy("imgwire-gate.service")).unwrap();
    assert!(unit.contains("\nTimeoutStopSec=40\n"));
}

#[test]
fn only_caddy_is_published_and_every_service_is_confined() {
    if !are_here(&["docker-compose"]) {
        return;
    }
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        assert_eq!(service.get("ports").is_some(), name == "caddy", "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true");
        assert!(service["mem_limit"].is_string(), "{name}");
    }
    assert_eq!(compose["networks"]["back"]["internal"], true);
    for store in ["redis", "postgres"] {
        assert_eq!(compose["services"][store]["networks"][0], "back");
        assert!(compose["services"][store]["secrets"].is_array());
    }
    // The gates trust Caddy's address, and nothing else in the network.
    let caddy = &compose["services"]["caddy"]["networks"]["front"]["ipv4_address"];
    assert_eq!(format!("{}/32", caddy.as_str().unwrap()), TRUSTED_PROXIES);
    let gate = &compose["services"]["gate-1"];
    assert_eq!(gate["environment"]["TRUSTED_PROXIES"], TRUSTED_PROXIES);
}

#[test]
fn in_kubernetes_the_management_port_is_open_to_one_namespace_and_secrets_to_the_gate() {
    if !are_here(&["docker-compose"]) {
        return;
    }
    let policy = kubernetes("NetworkPolicy");
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let ports: Vec<_> = rules
        .iter()
        .map(|rule| {
            assert_eq!(rule["from"].as_array().unwrap().len(), 1);
            rule["ports"][0]["port"].as_str().unwrap()
        })
        .collect();
    assert_eq!(ports, ["http", "management"]);
    let deployment = kubernetes("Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        &policy["spec"]["podSelector"]["matchLabels"]["app"],
        &labels["app"]
    );

    let pod = &deployment["spec"]["template"]["spec"];
    let gate = &pod["containers"][0];
    assert_eq!(gate["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(gate["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(pod["volumes"][1]["secret"]["defaultMode"], 0o440);
    // A tag of its own, because Kubernetes always pulls `latest`.
    let image = gate["image"].as_str().unwrap();
    assert!(
        image.contains(':') && !image.ends_with(":latest"),
        "{image}"
    );
}

#[test]
fn the_traefik_config_names_both_gates_and_their_readiness() {
    // Traefik itself is in no package.
    if !are_here(&["docker-compose"]) {
        return;
    }
    let [block] = &blocks("docs/deployment.md", "yaml")[..] else {
        panic!("one block")
    };
    let config = &yaml(block)[0];
    let router = &config["http"]["routers"]["imgwire-gate"];
    let rule = router["rule"].as_str().unwrap();
    assert!(rule.contains("PathPrefix(`/api/imgwire/`)"), "{rule}");
    let service = router["service"].as_str().unwrap();
    let balancer = &config["http"]["services"][service]["loadBalancer"];
    assert_eq!(balancer["servers"].as_array().unwrap().len(), 2);
    assert_eq!(balancer["healthCheck"]["path"], "/readyz");
    assert_eq!(balancer["healthCheck"]["port"], 9090);
}

#[test]
fn systemd_accepts_the_unit_and_calls_it_well_confined() {
    if !are_here(&["systemd-analyze"]) {
        return;
    }
    let unit = fs::read_to_string(deploy("imgwire-gate.service")).unwrap();
    // The path of the program on this machine.
    let unit = unit.replace("/usr/local/bin/imgwire-gate", PROGRAM);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("imgwire-gate.service");
    fs::write(&file, unit).unwrap();
    let analyze = |arguments: &[&str]| {
        let analyzed = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
        assert!(analyzed.status.success(), "{said}");
        said
    };
    let said = analyze(&["verify", "--man=no"]);
    assert!(!said.contains("imgwire-gate"), "{said}");
    // It fails above an exposure of 1.5 of 10.
    analyze(&["security", "--offline=true", "--threshold=15"]);
}

#[test]
fn the_configs_of_the_deployment_guide_are_valid() {
    let credentials = tempfile::tempdir().unwrap();
    let key = credentials.path().join("secrets_imgwire_api_key");
    fs::write(key, "sk_a_key\n").unwrap();
    let environment = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(credentials.path().to_str().unwrap().to_owned()),
        "IMGWIRE_API_KEY" => Some("sk_a_key".to_owned()),
        _ => Some("s".repeat(64)),
    };
    let start = blocks("docs/start.md", "toml").remove(0);
    let start: toml::Table = toml::from_str(&start).unwrap();
    for block in blocks("docs/deployment.md", "toml") {
        let block: toml::Table = toml::from_str(&block).unwrap();
        let mut whole = start.clone();
        whole.extend(block);
        let text = toml::to_string(&whole).unwrap();
        let loaded = settings::load("deployment.md", &text, &environment);
        loaded.unwrap_or_else(|faults| panic!("{text}\n{faults}"));
    }
}
