//! The watching of units against a real bus (`dbus-daemon`) and a stand-in for systemd on it.

use std::collections::BTreeMap;

use watchkeep_shared::wire::{
    heartbeat::{Service, ServiceStatus},
    policy::ServiceCheck,
};

use super::{super::Services, query::path_of, *};
use crate::{
    config::Config,
    dbus::testing::{Daemon, own},
    process::Tasks,
    services::Wakes,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// What the stand-in says of a unit.
#[derive(Clone, Debug)]
struct Fake {
    load: &'static str,
    active: &'static str,
    sub: &'static str,
    result: &'static str,
    exit: (u32, u32),
    restarts: u32,
}

const RUNS: Fake = Fake {
    load: "loaded",
    active: "active",
    sub: "running",
    result: "success",
    exit: (0, 0),
    restarts: 0,
};
const KILLED: Fake = Fake {
    active: "failed",
    sub: "failed",
    result: "signal",
    exit: (2, 9),
    ..RUNS
};

/// A change of a unit.
type Change = (&'static str, Fake);

/// Answers as systemd does until `changes` is closed.
async fn systemd(socket: PathBuf, mut changes: mpsc::Receiver<Change>) -> Result<(), BusError> {
    let mut bus = Bus::connect(&socket).await?;
    own(&mut bus, SYSTEMD).await?;
    let mut units: BTreeMap<&str, Fake> = BTreeMap::new();
    loop {
        tokio::select! {
            change = changes.recv() => {
                let Some((unit, fake)) = change else { return Ok(()) };
                bus.send(&changed(unit, &fake)).await?;
                units.insert(unit, fake);
            }
            message = bus.receive() => {
                let message = message?;
                if message.kind != dbus::Kind::Call {
                    continue;
                }
                let answer = match message.member.as_str() {
                    "Get" => property(&message, &units),
                    "ListUnitsFiltered" => failed(&message, &units),
                    _ => Call::answer(&message),
                };
                bus.send(&answer).await?;
            }
        }
    }
}

fn changed(unit: &str, fake: &Fake) -> Call {
    Call::signal(&path_of(unit), PROPERTIES, "PropertiesChanged")
        .with_text(UNIT)
        .with("a{sv}", |body| {
            body.array(8, |body| {
                body.align(8);
                body.text("ActiveState");
                body.signature("s");
                body.text(fake.active);
            });
        })
        .with("as", |body| body.texts(&[]))
}

fn property(message: &Message, units: &BTreeMap<&str, Fake>) -> Call {
    let values = message.values().unwrap();
    let name = values[1].text().unwrap();
    let unit = unit_of(&message.path).unwrap();
    let nowhere = Fake {
        load: "not-found",
        active: "inactive",
        sub: "dead",
        ..RUNS
    };
    let fake = units.get(unit.as_str()).unwrap_or(&nowhere);
    Call::answer(message).with("v", |body| match name {
        "TriggeredBy" => {
            body.signature("as");
            body.texts(&[]);
        }
        "Job" => {
            body.signature("(uo)");
            body.align(8);
            body.number(0);
            body.text("/");
        }
        "StateChangeTimestampMonotonic" | "InactiveExitTimestampMonotonic" => {
            body.signature("t");
            body.long(1);
        }
        "RemainAfterExit" | "ExecMainCode" | "ExecMainStatus" | "NRestarts" => {
            body.signature("u");
            body.number(match name {
                "ExecMainCode" => fake.exit.0,
                "ExecMainStatus" => fake.exit.1,
                "NRestarts" => fake.restarts,
                _ => 0,
            });
        }
        _ => {
            body.signature("s");
            body.text(match name {
                "Id" => &unit,
                "LoadState" => fake.load,
                "ActiveState" => fake.active,
                "SubState" => fake.sub,
                "Result" => fake.result,
                "Type" => "simple",
                _ => "",
            });
        }
    })
}

fn failed(message: &Message, units: &BTreeMap<&str, Fake>) -> Call {
    Call::answer(message).with("a(ssssssouso)", |body| {
        body.array(8, |body| {
            for (unit, _) in units.iter().filter(|(_, fake)| fake.active == "failed") {
                body.align(8);
                for text in [unit, "", "loaded", "failed", "failed", "", "/"] {
                    body.text(text);
                }
                body.number(0);
                body.text("");
                body.text("/");
            }
        });
    })
}

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

    async fn machine(&self) -> (Daemon, mpsc::Sender<Change>) {
        let socket = self.dir.path().join("bus");
        let daemon = Daemon::start(&socket).await;
        let (changes, receiver) = mpsc::channel(8);
        let stop = self.tasks.stop_token();
        self.tasks.spawn("systemd-stand-in", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // It ends with its bus.
                _ = systemd(socket, receiver) => {}
            }
        });
        (daemon, changes)
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
}

#[tokio::test]
async fn signals_tell_of_deaths_loops_and_failed_units_that_nobody_asked_for() {
    let mut story = Story::new("", &["web.service", "gone.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.send(("web.service", RUNS)).await.unwrap();
    story.until("web.service", ServiceStatus::Running, "").await;
    story
        .until("gone.service", ServiceStatus::NotFound, "")
        .await;

    machine.send(("web.service", KILLED)).await.unwrap();
    let killed = "killed by signal 9";
    story
        .until("web.service", ServiceStatus::Failed, killed)
        .await;
    machine.send(("job.service", KILLED)).await.unwrap();
    story
        .until("job.service", ServiceStatus::Failed, killed)
        .await;

    for restarts in 1..=3 {
        let looping = Fake { restarts, ..RUNS };
        machine.send(("web.service", looping)).await.unwrap();
        let (status, detail) = match restarts {
            1 => (ServiceStatus::Running, "restarted once"),
            2 => (ServiceStatus::Running, "restarted 2 times"),
            _ => (ServiceStatus::RestartLoop, "3 or more restarts"),
        };
        story.until("web.service", status, detail).await;
    }
    // Started by hand, which sets systemd's count back.
    machine.send(("web.service", RUNS)).await.unwrap();
    story.until("web.service", ServiceStatus::Running, "").await;
    machine.send(("job.service", RUNS)).await.unwrap();
    story.until("job.service", ServiceStatus::Running, "").await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn while_the_bus_is_away_units_are_polled_and_its_return_is_noticed() {
    let mut story = Story::new("", &["watchkeep-no-such.service"]);
    let unit = "watchkeep-no-such.service";
    let (daemon, machine) = story.machine().await;
    machine.send((unit, RUNS)).await.unwrap();
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
    machine.send((unit, KILLED)).await.unwrap();
    story
        .until(unit, ServiceStatus::Failed, "killed by signal 9")
        .await;
    story.tasks.stop().await;
}

#[tokio::test]
async fn the_customer_may_hide_failed_units() {
    let mut story = Story::new("[limits]\nunits = [\"w*.service\"]\n", &["web.service"]);
    let (_daemon, machine) = story.machine().await;
    machine.send(("secret.service", KILLED)).await.unwrap();
    machine.send(("worker.service", KILLED)).await.unwrap();
    machine.send(("web.service", RUNS)).await.unwrap();
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
