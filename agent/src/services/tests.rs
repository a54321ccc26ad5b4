//! Processes and endpoints as they come and go.

use std::process::Command;

use super::*;

fn status(services: &Services, key: &str) -> ServiceStatus {
    let found = services.snapshot().into_iter().find(|s| s.key == key);
    found.unwrap().status
}

fn watching(tasks: &Tasks) -> (Services, Wakes) {
    let config = crate::config::Config::parse("", "x", &|_| None).unwrap();
    let nowhere = SystemdPaths {
        socket: "/nonexistent".into(),
        booted: "/nonexistent".into(),
    };
    Services::new(tasks.clone(), &config.limits, nowhere)
}

#[tokio::test]
async fn a_process_that_dies_and_comes_back_is_seen_even_as_a_zombie() {
    let tasks = Tasks::default();
    let (mut services, mut wakes) = watching(&tasks);
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("wk-test-sleeper");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let key = "process:wk-test-sleeper";
    services.set(&[ServiceCheck::process("wk-test-sleeper")], 10_000);
    assert_eq!(status(&services, key), ServiceStatus::Stopped);

    let mut child = Command::new(&program).arg("600").spawn().unwrap();
    // `spawn` returns when the new program runs, so its name is right at once.
    assert!(services.check_processes());
    assert_eq!(status(&services, key), ServiceStatus::Running);
    assert!(!services.check_processes());

    // Killed and not waited for: a zombie, whose name is still there.
    child.kill().unwrap();
    tokio::time::timeout(Duration::from_secs(20), wakes.exits.recv())
        .await
        .unwrap();
    assert!(services.check_processes());
    assert_eq!(status(&services, key), ServiceStatus::Stopped);
    child.wait().unwrap();
    tasks.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_running_while_something_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let key = format!("tcp:{address}");
    let tasks = Tasks::default();
    let (mut services, mut wakes) = watching(&tasks);
    services.set(&[ServiceCheck::Tcp { address }], 1_000);
    assert_eq!(status(&services, &key), ServiceStatus::Unknown);
    let deadline = Duration::from_secs(20);
    for (expected, listener) in [
        (ServiceStatus::Running, Some(listener)),
        (ServiceStatus::Stopped, None),
    ] {
        tokio::time::timeout(deadline, async {
            while status(&services, &key) != expected {
                let result = wakes.probes.recv().await.unwrap();
                services.apply(result);
            }
        })
        .await
        .unwrap();
        drop(listener);
    }
    tasks.stop().await;
}

/// An address that this machine gets, as by DHCP or keepalived, in a network of the test's own. There
/// sockets may be bound to any address, as on nodes of a cluster.
#[tokio::test]
async fn an_address_is_watched_from_when_it_comes_and_never_at_another_machine() {
    const INSIDE: &str = "WATCHKEEP_TEST_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_none() {
        let name = "services::tests::\
                    an_address_is_watched_from_when_it_comes_and_never_at_another_machine";
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env(INSIDE, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let ip = |arguments: &str| {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "{arguments}");
    };
    ip("link set lo up");
    std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
    assert!(std::net::UdpSocket::bind("192.0.2.7:0").is_ok());

    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let address = format!("192.0.2.7:{}", listener.local_addr().unwrap().port());
    let tasks = Tasks::default();
    let (mut services, mut wakes) = watching(&tasks);
    services.set(&[ServiceCheck::Tcp { address }], 1_000);
    for (command, expected) in [
        (None, ServiceStatus::Unknown),
        (Some("addr add 192.0.2.7/32 dev lo"), ServiceStatus::Running),
        (Some("addr del 192.0.2.7/32 dev lo"), ServiceStatus::Unknown),
    ] {
        if let Some(command) = command {
            ip(command);
        }
        tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                services.apply(wakes.probes.recv().await.unwrap());
                let service = services.snapshot().remove(0);
                // The state before the first probe is unknown too.
                let is_probed = service.detail.as_deref() != Some("not probed yet");
                if is_probed && service.status == expected {
                    break;
                }
            }
        })
        .await
        .unwrap();
        let service = services.snapshot().remove(0);
        let elsewhere = service.detail.as_deref() == Some("not an address of this machine now");
        assert_eq!(elsewhere, expected == ServiceStatus::Unknown, "{service:?}");
    }
    tasks.stop().await;
}

#[tokio::test]
async fn results_of_an_older_policy_are_ignored() {
    let tasks = Tasks::default();
    let (mut services, _wakes) = watching(&tasks);
    let address = "127.0.0.1:1".to_owned();
    services.set(&[ServiceCheck::Tcp { address }], 1_000);
    let stale = ProbeResult {
        generation: services.generation,
        found: Found::One {
            key: "tcp:127.0.0.1:1".to_owned(),
            seen: Finding {
                status: ServiceStatus::Running,
                detail: None,
            }
            .into(),
        },
    };
    services.set(&[], 1_000);
    assert!(!services.apply(stale));
    assert!(services.snapshot().is_empty());
    tasks.stop().await;
}
