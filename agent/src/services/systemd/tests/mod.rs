//! The watching of units against a real bus (`dbus-daemon`) and a stand-in for systemd on it.

mod stand_in;

use watchkeep_shared::wire::{
    heartbeat::{Service, ServiceStatus},
    policy::ServiceCheck,
};

use self::stand_in::{Change, Fake, KILLED, RUNS, StandIn};
use super::{super::Services, *};
use crate::{config::Config, dbus::testing::Daemon, process::Tasks, services::Wakes};

const DEADLINE: Duration = Duration::from_secs(30);

/// The agent's side, and the machine that it is on.
struct Story {
    tasks: Tasks,
    services: Services,
    wakes: Wakes,
    dir: tempfile::TempDir,
}

impl Story {
    fn new(settings: &str, units: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse(settings, "agent.toml", &|_| None).unwrap();
        let place = SystemdPaths {
            socket: dir.path().join("bus"),
            booted: dir.path().to_owned(),
        };
        let tasks = Tasks::default();
        let (mut services, wakes) = Services::new(tasks.clone(), &config.limits, place);
        let checks: Vec<ServiceCheck> = units
            .iter()
            .map(|unit| ServiceCheck::Systemd {
                unit: (*unit).to_owned(),
            })
            .collect();
        services.set(&checks, 10_000);
        Self {
            tasks,
            services,
            wakes,
            dir,
        }
    }

    async fn machine(&self) -> (Daemon, StandIn) {
        self.machine_of_version(252).await
    }

    async fn machine_of_version(&self, version: u32) -> (Daemon, StandIn) {
        let socket = self.dir.path().join("bus");
        let daemon = Daemon::start(&socket).await;
        let stand_in = StandIn::start(&self.tasks, socket, version);
        (daemon, stand_in)
    }

    /// Waits until a unit is reported so; gives its detail.
    async fn until(&mut self, unit: &str, status: ServiceStatus, detail: &str) {
        let key = format!("systemd:{unit}");
        let seen = async {
            while !self.is(&key, status, detail) {
                let result = self.wakes.probes.recv().await.unwrap();
                self.services.apply(result);
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, seen).await.is_ok();
        assert!(
            in_time,
            "{unit}: {status:?} {detail}: {:?}",
            self.services.snapshot()
        );
    }

    fn is(&self, key: &str, status: ServiceStatus, detail: &str) -> bool {
        let is_it = |service: &Service| {
            let text = service.detail.as_deref().unwrap_or_default();
            service.key == key && service.status == status && text.contains(detail)
        };
        self.services.snapshot().iter().any(is_it)
    }

    fn keys(&self) -> Vec<String> {
        self.services
            .snapshot()
            .into_iter()
            .map(|one| one.key)
            .collect()
    }

    /// Waits until exactly these are reported.
    async fn until_keys(&mut self, keys: &[&str]) {
        let seen = async {
            while self.keys() != keys {
                let result = self.wakes.probes.recv().await.unwrap();
                self.services.apply(result);
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, seen).await.is_ok();
        assert!(in_time, "{:?}", self.services.snapshot());
    }
}

#[tokio::test]
async fn signals_tell_of_deaths_loops_and_failed_units_that_nobody_asked_for() {
    let mut story = Story::new("", &["web.service", "gone.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    story
        .until("gone.service", ServiceStatus::NotFound, "")
        .await;

    machine.set("web.service", KILLED).await;
    let killed = "killed by signal 9";
    story
        .until("web.service", ServiceStatus::Failed, killed)
        .await;
    machine.set("job.service", KILLED).await;
    story
        .until("job.service", ServiceStatus::Failed, killed)
        .await;

    for restarts in 1..=3 {
        let looping = Fake { restarts, ..RUNS };
        machine.set("web.service", looping).await;
        let (status, detail) = match restarts {
            1 => (ServiceStatus::Running, "restarted once"),
            2 => (ServiceStatus::Running, "restarted 2 times"),
            _ => (ServiceStatus::RestartLoop, "3 or more restarts"),
        };
        story.until("web.service", status, detail).await;
    }
    // Started by hand, which sets systemd's count back.
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    machine.set("job.service", RUNS).await;
    story.until("job.service", ServiceStatus::Running, "").await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn while_the_bus_is_away_units_are_polled_and_its_return_is_noticed() {
    let mut story = Story::new("", &["watchkeep-no-such.service"]);
    let unit = "watchkeep-no-such.service";
    let (daemon, machine) = story.machine().await;
    machine.set(unit, RUNS).await;
    story.until(unit, ServiceStatus::Running, "").await;
    drop(daemon);
    let away = "the system bus is away";
    let polled = async {
        loop {
            let result = story.wakes.probes.recv().await.unwrap();
            story.services.apply(result);
            let services = story.services.snapshot();
            if services[0]
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains(away))
            {
                break services[0].status;
            }
        }
    };
    let status = tokio::time::timeout(DEADLINE, polled).await.unwrap();
    // It ran, and has no control group; whether that is a proof depends on the machine's.
    assert_ne!(status, ServiceStatus::Running);
    let (_daemon, machine) = story.machine().await;
    machine.set(unit, KILLED).await;
    story
        .until(unit, ServiceStatus::Failed, "killed by signal 9")
        .await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn the_customer_may_hide_failed_units() {
    let mut story = Story::new("[limits]\nunits = [\"w*.service\"]\n", &["web.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.set("secret.service", KILLED).await;
    machine.set("worker.service", KILLED).await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    story
        .until("worker.service", ServiceStatus::Failed, "")
        .await;
    assert_eq!(
        story.keys(),
        ["systemd:web.service", "systemd:worker.service"]
    );
    story.tasks.stop().await;
}

#[tokio::test]
async fn without_systemd_units_are_unknown_and_say_why() {
    let mut story = Story::new("", &[]);
    let nowhere = SystemdPaths {
        socket: "/nonexistent".into(),
        booted: "/nonexistent".into(),
    };
    let config = Config::parse("", "agent.toml", &|_| None).unwrap();
    (story.services, story.wakes) = Services::new(story.tasks.clone(), &config.limits, nowhere);
    let unit = "web.service".to_owned();
    story
        .services
        .set(&[ServiceCheck::Systemd { unit }], 10_000);
    let why = "systemd did not boot this machine";
    story
        .until("web.service", ServiceStatus::Unknown, why)
        .await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn a_service_that_was_stopped_with_its_socket_is_stopped() {
    let mut story = Story::new("", &["docker.service"]);
    let (_daemon, machine) = story.machine().await;
    let socket = Fake {
        sub: "listening",
        ..RUNS
    };
    let idle = Fake {
        active: "inactive",
        sub: "dead",
        triggered_by: &["docker.socket"],
        ..RUNS
    };
    machine.set("docker.socket", socket.clone()).await;
    machine.set("docker.service", idle).await;
    let unit = "docker.service";
    let excused = "started by docker.socket when needed";
    story.until(unit, ServiceStatus::Running, excused).await;

    let stopped = Fake {
        active: "inactive",
        sub: "dead",
        ..socket.clone()
    };
    machine.set("docker.socket", stopped).await;
    let text = "docker.socket, which starts it, is not active";
    story.until(unit, ServiceStatus::Stopped, text).await;
    machine.set("docker.socket", socket).await;
    story.until(unit, ServiceStatus::Running, excused).await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn a_systemd_without_newer_properties_and_methods_is_followed() {
    // CentOS 7 has 219, Ubuntu 16.04 229.
    for version in [219, 229, 234] {
        let mut story = Story::new("", &["web.service", "idle.service"]);
        let (_daemon, machine) = story.machine_of_version(version).await;
        machine.set("web.service", RUNS).await;
        story.until("web.service", ServiceStatus::Running, "").await;
        let stopping = Fake {
            active: "deactivating",
            sub: "stop-sigterm",
            ..RUNS
        };
        machine.set("web.service", stopping).await;
        let changing = ServiceStatus::Changing;
        story.until("web.service", changing, "stopping").await;
        machine.set("web.service", KILLED).await;
        story
            .until("web.service", ServiceStatus::Failed, "killed by signal 9")
            .await;
        machine.set("job.service", KILLED).await;
        story.until("job.service", ServiceStatus::Failed, "").await;
        story
            .until("idle.service", ServiceStatus::NotFound, "")
            .await;
        assert_eq!(machine.calls("Subscribe"), 1, "one connection");
        story.tasks.stop().await;
    }
}

#[tokio::test]
async fn thousands_of_failed_units_and_their_reset_keep_the_connection() {
    let mut story = Story::new("", &["web.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    let instances = (0..3_000).map(|i| format!("session@{i:04}.service"));
    let jobs = (0..100).map(|i| format!("job-{i:03}.service"));
    let failed: Vec<String> = instances.chain(jobs).collect();
    let fakes = failed.iter().map(|unit| (unit.clone(), KILLED)).collect();
    machine.change(Change::Set(fakes)).await;
    let all = "3084 more failed: job-016.service";
    story.until("*", ServiceStatus::Failed, all).await;
    story
        .until("job-003.service", ServiceStatus::Failed, "killed by")
        .await;
    // 16 jobs, the rest, and the unit that was asked for.
    assert_eq!(story.keys().len(), 18);

    machine.change(Change::ResetFailed).await;
    story.until("*", ServiceStatus::Running, "none").await;
    story
        .until_keys(&["systemd:*", "systemd:web.service"])
        .await;
    machine.set("web.service", KILLED).await;
    story
        .until("web.service", ServiceStatus::Failed, "killed by")
        .await;
    assert_eq!(machine.calls("Subscribe"), 1, "one connection");
    story.tasks.stop().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_keeps_the_connection() {
    let mut story = Story::new("", &["web.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    machine.change(Change::Descriptions(200_000)).await;
    let failed = (0..30).map(|i| (format!("job-{i:02}.service"), KILLED));
    let lists = machine.calls("ListUnitsFiltered");
    machine.change(Change::Set(failed.collect())).await;
    machine.set("web.service", KILLED).await;
    story
        .until("web.service", ServiceStatus::Failed, "killed by")
        .await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    assert!(machine.calls("ListUnitsFiltered") > lists);
    assert_eq!(machine.calls("Subscribe"), 1, "one connection");
    story.tasks.stop().await;
}

#[tokio::test]
async fn instances_of_a_template_are_one_entry() {
    let mut story = Story::new("", &[]);
    let (_daemon, machine) = story.machine().await;
    machine.set("sshd@1.service", KILLED).await;
    machine.set("sshd@2.service", KILLED).await;
    let text = "2 instances: sshd@1.service, sshd@2.service";
    story
        .until("sshd@.service", ServiceStatus::Failed, text)
        .await;
    assert_eq!(story.keys(), ["systemd:sshd@.service"]);
    story.tasks.stop().await;
}

#[tokio::test]
async fn units_that_did_not_change_are_not_asked_about_again() {
    let names: Vec<String> = (0..20).map(|i| format!("unit-{i:02}.service")).collect();
    let units: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut story = Story::new("", &units);
    let (_daemon, machine) = story.machine().await;
    let fakes = names.iter().map(|unit| (unit.clone(), RUNS)).collect();
    machine.change(Change::Set(fakes)).await;
    for unit in &units {
        story.until(unit, ServiceStatus::Running, "").await;
    }
    let marker = |restarts| Fake { restarts, ..RUNS };
    machine.set(units[0], marker(1)).await;
    story
        .until(units[0], ServiceStatus::Running, "restarted once")
        .await;
    let before = (machine.calls("Get"), machine.calls("ListUnitsByPatterns"));

    // As at each resync: the table is compared.
    machine.change(Change::Loaded(names[7].clone())).await;
    machine
        .change(Change::Elsewhere("other.service".to_owned()))
        .await;
    machine.set(units[0], marker(2)).await;
    story
        .until(units[0], ServiceStatus::Running, "restarted 2 times")
        .await;
    let asked = machine.calls("Get") - before.0;
    assert!(asked <= 2 * stand_in::PROPERTIES_OF_A_SERVICE, "{asked}");
    assert!(machine.calls("ListUnitsByPatterns") > before.1);
    story.tasks.stop().await;
}

/// On a machine where units come and go all the time.
#[tokio::test]
async fn signals_of_others_do_not_delay_a_unit_that_settles() {
    let mut story = Story::new("", &["web.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.set("web.service", RUNS).await;
    story.until("web.service", ServiceStatus::Running, "").await;
    let restarting = Fake {
        has_job: true,
        ..KILLED
    };
    machine.set("web.service", restarting).await;
    let others = async {
        loop {
            let other = "run-42.service".to_owned();
            machine.change(Change::Elsewhere(other)).await;
            // The rate of the signals; nothing waits for it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = story.until("web.service", ServiceStatus::Failed, "killed by");
    tokio::select! {
        () = settled => {}
        () = others => {}
    }
    story.tasks.stop().await;
}
