//! Servers that an agent should never meet: whatever they do, it keeps its frames, stays small,
//! comes back at most every so often, and says in plain words what is wrong.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use serde_json::Value;

use crate::{
    agent::{Agent, policy, with_policy},
    fake::{Answer, DEADLINE, Fake, accept},
};

/// Most memory that an answer may cost, KiB: what is read of one, and buffers around it.
const MOST_GROWTH_KIB: u64 = 8 << 10;

impl Agent {
    /// Largest resident size so far, KiB.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends it to another server from the next start on.
    fn point_to(&self, url: &str) {
        let path = self.state("identity.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut identity: Value = serde_json::from_str(&text).unwrap();
        identity["url"] = url.into();
        std::fs::write(path, identity.to_string()).unwrap();
    }
}

/// A server of plain TCP that does one thing to every connection, and counts them.
struct Raw {
    url: String,
    connections: Arc<AtomicUsize>,
    arrivals: mpsc::Receiver<()>,
}

impl Raw {
    fn start(act: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, arrivals) = mpsc::channel();
        let (counted, act) = (connections.clone(), Arc::new(act));
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = tell.send(());
                let act = act.clone();
                std::thread::spawn(move || act(connection));
            }
        });
        Self {
            url,
            connections,
            arrivals,
        }
    }

    fn wait_for(&self, count: usize) {
        for _ in 0..count {
            self.arrivals
                .recv_timeout(DEADLINE)
                .expect("the agent comes back");
        }
    }
}

/// An agent that beats five times a second, and is connected.
fn settled(fake: &Fake) -> Agent {
    let mut agent = Agent::enrolled(fake);
    fake.answer(with_policy(policy(&agent, Vec::new())));
    agent.start();
    fake.arrival_that(|arrival| arrival.batch.policy_version == 3);
    fake.settle();
    agent
}

/// The agent beats five times a second, but after a failure waits 0.1 s at least, and longer each
/// time: attempts must be far fewer than beats.
fn assert_patient(attempts: usize, since: Instant) {
    let most = 3 + (since.elapsed().as_millis() / 100) as usize;
    assert!(attempts <= most, "{attempts} attempts, {most} at most");
}

/// Answers, the state that follows, and a part of what people are shown.
fn nonsense() -> Vec<(Answer, &'static str, &'static str)> {
    let headers = "x-long: 0123456789abcdef\r\n".repeat(1_000);
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    vec![
        (
            Answer::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
            "unreachable",
            "HTTP",
        ),
        (
            Answer::Endless("HTTP/1.1 200 x\r\n", headers),
            "unreachable",
            "message head is too large",
        ),
        (
            Answer::Endless(
                "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n",
                chunk,
            ),
            "wrong_server",
            "more than 1048576 bytes",
        ),
        (
            Answer::Raw(b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\n{".to_vec()),
            "unreachable",
            "body",
        ),
        (
            Answer::Http(
                503,
                "retry-after: soon\r\n",
                "<html>maintenance</html>".to_owned(),
            ),
            "busy",
            "503",
        ),
        (Answer::Http(407, "", String::new()), "refused", "407"),
        (
            Answer::Http(
                301,
                "location: https://example.com/agent\r\n",
                String::new(),
            ),
            "wrong_server",
            "status 301",
        ),
    ]
}

#[test]
fn nonsense_costs_no_memory_and_no_frames() {
    let fake = Fake::start();
    let agent = settled(&fake);
    let before = agent.peak_kib();
    for (answer, connection, said) in nonsense() {
        let (given, since) = (answer.clone(), Instant::now());
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = attempts.clone();
        fake.answer(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            given.clone()
        });
        fake.settle();
        let status = agent.status();
        assert_eq!(status["connection"], connection, "{answer:?}: {status}");
        let text = agent.status_text();
        assert!(text.contains(said), "{answer:?}: {said} is not in\n{text}");
        assert!(status["spool_frames"].as_u64().unwrap() > 0);
        fake.answer(accept);
        assert_patient(attempts.load(Ordering::Relaxed), since);
        fake.settle();
        assert_eq!(
            agent.status()["connection"],
            "connected",
            "after {answer:?}"
        );
    }
    let growth = agent.peak_kib() - before;
    assert!(growth < MOST_GROWTH_KIB, "{growth} KiB more");
}

#[test]
fn a_body_that_drips_is_left_after_a_while() {
    let fake = Fake::start();
    let agent = settled(&fake);
    fake.answer(|_| Answer::Drip);
    fake.arrival();
    // The second one comes when the first was given up.
    fake.arrival();
    let text = agent.status_text();
    assert!(text.contains("can't reach the collector"), "{text}");
    fake.answer(accept);
    fake.settle();
    assert_eq!(agent.status()["connection"], "connected");
}

#[test]
fn a_server_that_is_not_the_collector_is_told_by_what_it_shows() {
    let fake = Fake::start();
    let other = Fake::start();
    let alert = Raw::start(|mut stream| {
        // A fatal alert, access_denied (RFC 8446, section 6).
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 49]);
        let _ = stream.read(&mut [0; 4096]);
    });
    let closes = Raw::start(drop);
    let plain = Raw::start(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let mut agent = Agent::enrolled(&fake);
    for (url, raw, connection, said) in [
        (other.url(), None, "wrong_server", "not trusted"),
        (
            alert.url.as_str(),
            Some(&alert),
            "refused",
            "refused this agent's certificate",
        ),
        (
            closes.url.as_str(),
            Some(&closes),
            "unreachable",
            "can't reach the collector",
        ),
        (
            plain.url.as_str(),
            Some(&plain),
            "unreachable",
            "can't reach the collector",
        ),
    ] {
        agent.point_to(url);
        let since = Instant::now();
        agent.start();
        match raw {
            Some(raw) => {
                raw.wait_for(4);
                assert_patient(raw.connections.load(Ordering::Relaxed), since);
            }
            None => other.wait_for_connections(4),
        }
        let (status, text) = (agent.status(), agent.status_text());
        assert_eq!(status["connection"], connection, "{status}");
        assert!(text.contains(said), "{said} is not in\n{text}");
        agent.kill();
    }
    agent.point_to(fake.url());
    agent.start();
    fake.settle();
    assert_eq!(agent.status()["connection"], "connected");
}

/// A proxy that takes one CONNECT a connection and counts them.
fn proxy() -> Raw {
    Raw::start(|mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.strip_prefix("CONNECT ").unwrap();
        let target = target.split(' ').next().unwrap();
        let upstream = TcpStream::connect(target).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &upstream, &mut stream);
    })
}

#[test]
fn enrolment_and_heartbeats_take_the_configured_proxy_and_no_other_way() {
    let fake = Fake::start();
    let proxy = proxy();
    let mut agent = Agent::new();
    let config = agent.dir.path().join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |url: &str| {
        std::fs::write(&config, format!("{text}[uplink]\nproxy = \"{url}\"\n")).unwrap();
    };
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    with(&format!("http://{dead}"));
    let output = agent.command(&["enroll", &fake.token().to_string()]);
    assert!(!output.status.success(), "it went around the proxy");

    with(&proxy.url.replace("https://", "http://"));
    let output = agent.command(&["enroll", &fake.token().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 1);
    agent.start();
    fake.arrival();
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);
    agent.stop();
}
