//! Asking against stand-ins: a chronyd behind real UDP, a systemd-timesyncd on a real bus.

use std::{
    fs::File,
    net::UdpSocket,
    path::Path,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use watchkeep_shared::metric;

use super::{chrony::fake, timesyncd::NAME, *};
use crate::dbus::{
    Bus, Call, Kind,
    testing::{Daemon, own},
};

/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(30);
/// For what gives no answer.
const SHORT: Duration = Duration::from_millis(50);

/// A machine of its own, on which nothing keeps the clock yet.
struct Machine {
    place: ClockSources,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Nobody is behind a port that was given back, and no other test takes it at this address.
        let address = Ipv4Addr::new(127, rand::random(), rand::random(), 2);
        let port = UdpSocket::bind((address, 0)).unwrap();
        let place = ClockSources {
            chronyd: port.local_addr().unwrap(),
            timesyncd: dir.path().join("timesync"),
            bus: dir.path().join("bus"),
            patience,
        };
        Self { place, dir }
    }

    fn compared(&self, at: SystemTime) {
        std::fs::create_dir_all(&self.place.timesyncd).unwrap();
        let file = File::create(self.place.timesyncd.join("synchronized")).unwrap();
        file.set_modified(at).unwrap();
    }

    fn compared_ago(&self, ago: Duration) {
        let now = UNIX_EPOCH + Duration::from_millis(clock::now().wall_ms as u64);
        self.compared(now - ago);
    }
}

const UNIX_EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

fn reading(synchronised: bool, ahead_ms: Option<f64>) -> Reading {
    Reading {
        synchronised: Some(synchronised),
        ahead_ms,
    }
}

/// Makes an answer to a question.
type Answer = fn(&[u8]) -> Vec<u8>;

/// Answers one question for each of `answers`, then is gone.
fn chronyd(at: SocketAddr, answers: Vec<Answer>) -> JoinHandle<()> {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let mut question = [0; 512];
            let (length, from) = socket.recv_from(&mut question).unwrap();
            socket.send_to(&answer(&question[..length]), from).unwrap();
        }
    })
}

fn quarter_behind(question: &[u8]) -> Vec<u8> {
    fake::answer(question, clock::now().wall_ms / 1_000, 0.25)
}

#[tokio::test]
async fn where_nothing_keeps_the_clock_nothing_is_said() {
    let machine = Machine::new(LONG);
    let mut asker = Asker::new(&machine.place);
    assert_eq!(asker.look().await, None);
    let tasks = Tasks::default();
    assert_eq!(Timekeeping::start(&tasks).values(), []);
    tasks.stop().await;
}

#[tokio::test]
async fn chronyd_is_asked_and_when_it_is_gone_its_values_are_missing() {
    let machine = Machine::new(LONG);
    let answers: Vec<Answer> = vec![quarter_behind, fake::unsynchronised, |_| vec![6, 2, 0, 0]];
    let daemon = chronyd(machine.place.chronyd, answers);
    let mut asker = Asker::new(&machine.place);
    assert_eq!(asker.look().await, Some(reading(true, Some(-250.0))));
    assert_eq!(asker.look().await, Some(reading(false, None)));
    // Nonsense is no answer.
    assert_eq!(asker.look().await, Some(Reading::default()));
    daemon.join().unwrap();
    assert_eq!(asker.look().await, Some(Reading::default()));
    let values = Reading::default().values();
    let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["clock.synchronised", "clock.offset_ms"]);
    let document = include_str!("../../../docs/metrics.md");
    for name in names {
        assert!(metric::is_valid_name(name));
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test]
async fn a_machine_without_chronyd_is_not_asked_each_time() {
    let machine = Machine::new(LONG);
    let mut asker = Asker::new(&machine.place);
    assert_eq!(asker.look().await, None);
    let daemon = chronyd(machine.place.chronyd, vec![quarter_behind]);
    for _ in 0..9 {
        assert_eq!(asker.look().await, None);
    }
    assert_eq!(asker.look().await, Some(reading(true, Some(-250.0))));
    daemon.join().unwrap();
}

#[tokio::test]
async fn a_chronyd_that_hangs_is_given_up() {
    let machine = Machine::new(SHORT);
    let _silent = UdpSocket::bind(machine.place.chronyd).unwrap();
    assert_eq!(Asker::new(&machine.place).look().await, None);
}

/// What systemd-timesyncd says.
#[derive(Clone, Copy)]
struct Message {
    /// Left, came, left again, came again, microseconds.
    times: [u64; 4],
    spike: u32,
    packets: u64,
}

const HALF_SECOND_AHEAD: Message = Message {
    times: [
        1_790_000_000_500_000,
        1_790_000_000_010_000,
        1_790_000_000_010_020,
        1_790_000_000_520_020,
    ],
    spike: 0,
    packets: 7,
};

impl Message {
    fn answer(self, call: &dbus::Message) -> Call {
        Call::answer(call).with("v", |body| {
            body.signature("(uuuuittayttttbtt)");
            body.align(8);
            for number in [0, 4, 4, 2, 0xffff_ffe7] {
                body.number(number);
            }
            body.long(15_000);
            body.long(400);
            body.array(1, |body| [192, 0, 2, 1].iter().for_each(|b| body.byte(*b)));
            for time in self.times {
                body.long(time);
            }
            body.number(self.spike);
            body.long(self.packets);
            body.long(12_000);
        })
    }
}

/// Answers each call for a property with the next of `messages`, then with none. It has its name
/// when this returns.
async fn timesyncd(bus: &Path, tasks: &Tasks, messages: Vec<Message>) {
    let mut bus = Bus::connect(bus).await.unwrap();
    own(&mut bus, NAME).await.unwrap();
    let mut messages = messages.into_iter();
    let answering = async move {
        // It ends with its bus.
        while let Ok(call) = bus.receive().await {
            let values = call.values().unwrap();
            let asked: Vec<_> = values.iter().filter_map(|value| value.text()).collect();
            if call.kind != Kind::Call {
                continue;
            }
            assert_eq!(asked, ["org.freedesktop.timesync1.Manager", "NTPMessage"]);
            if let Some(message) = messages.next()
                && bus.send(&message.answer(&call)).await.is_err()
            {
                return;
            }
        }
    };
    let stop = tasks.stop_token();
    tasks.spawn("timesyncd-stand-in", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = answering => {}
        }
    });
}

#[tokio::test]
async fn timesyncd_is_asked_once_after_each_comparison() {
    let machine = Machine::new(LONG);
    let mut asker = Asker::new(&machine.place);
    std::fs::create_dir(&machine.place.timesyncd).unwrap();
    assert_eq!(asker.look().await, Some(reading(false, None)));

    // The file answers even where the bus does not.
    machine.compared_ago(Duration::from_hours(1));
    assert_eq!(asker.look().await, Some(reading(true, None)));
    let daemon = Daemon::start(&machine.place.bus).await;
    let tasks = Tasks::default();
    let behind = Message {
        times: [1_000_000, 1_030_000, 1_030_000, 1_020_000],
        ..HALF_SECOND_AHEAD
    };
    let spike = Message {
        spike: 1,
        ..HALF_SECOND_AHEAD
    };
    let none_yet = Message {
        times: [0; 4],
        packets: 0,
        ..HALF_SECOND_AHEAD
    };
    let messages = vec![HALF_SECOND_AHEAD, behind, spike, none_yet];
    timesyncd(&machine.place.bus, &tasks, messages).await;
    for _ in 0..3 {
        assert_eq!(asker.look().await, Some(reading(true, Some(500.0))));
    }
    machine.compared_ago(Duration::from_mins(30));
    assert_eq!(asker.look().await, Some(reading(true, Some(-20.0))));
    for ago_min in [15, 10] {
        machine.compared_ago(Duration::from_mins(ago_min));
        assert_eq!(asker.look().await, Some(reading(true, None)));
    }
    machine.compared_ago(Duration::from_hours(4));
    assert_eq!(asker.look().await, Some(reading(false, None)));
    std::fs::remove_dir_all(&machine.place.timesyncd).unwrap();
    assert_eq!(asker.look().await, Some(Reading::default()));
    tasks.stop().await;
    drop(daemon);
}

#[tokio::test]
async fn a_timesyncd_that_hangs_is_given_up_and_asked_again() {
    let machine = Machine::new(SHORT);
    machine.compared_ago(Duration::ZERO);
    let _daemon = Daemon::start(&machine.place.bus).await;
    let tasks = Tasks::default();
    timesyncd(&machine.place.bus, &tasks, Vec::new()).await;
    let mut asker = Asker::new(&machine.place);
    assert_eq!(asker.look().await, Some(reading(true, None)));
    tasks.stop().await;
    let tasks = Tasks::default();
    timesyncd(&machine.place.bus, &tasks, vec![HALF_SECOND_AHEAD]).await;
    asker.timesyncd.patience = LONG;
    assert_eq!(asker.look().await, Some(reading(true, Some(500.0))));
    tasks.stop().await;
}

#[tokio::test]
async fn asking_does_not_start_timesyncd() {
    let machine = Machine::new(LONG);
    machine.compared_ago(Duration::ZERO);
    let started = machine.dir.path().join("started");
    let services = machine.dir.path().join("dbus-1/services");
    std::fs::create_dir_all(&services).unwrap();
    let service = format!(
        "[D-BUS Service]\nName={NAME}\nExec=/bin/sh -c \"touch {}; exit 1\"\n",
        started.display()
    );
    std::fs::write(services.join("timesync.service"), service).unwrap();
    let _daemon = Daemon::start(&machine.place.bus).await;
    assert_eq!(
        Asker::new(&machine.place).look().await,
        Some(reading(true, None))
    );
    assert!(!started.exists());
    // The same call would, if it were allowed to.
    let mut bus = Bus::connect(&machine.place.bus).await.unwrap();
    let call = Call::method(NAME, "/", "org.freedesktop.DBus.Peer", "Ping");
    assert_eq!(bus.call(&call).await.unwrap().kind, Kind::Error);
    assert!(started.exists());
}
