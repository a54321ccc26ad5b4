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
