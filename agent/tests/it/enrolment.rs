//! Enrolment where the way or the user is not the usual one.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::Command,
    sync::mpsc,
};

use crate::{
    agent::{Agent, policy, with_policy},
    fake::{DEADLINE, Fake},
};

/// A user that no account of the machine has.
const SERVICE_USER: u32 = 54_321;

#[test]
fn enrolment_as_root_makes_files_of_the_directory_s_owner() {
    let fake = Fake::start();
    let agent = Agent::new();
    let state = agent.state("");
    fs::create_dir(&state).unwrap();
    let is_root = fs::metadata(&state).unwrap().uid() == 0;
    if is_root {
        // As a package makes it.
        chown(&state, Some(SERVICE_USER), Some(SERVICE_USER)).unwrap();
        fs::set_permissions(agent.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let owner = fs::metadata(&state).unwrap().uid();
    for force in [&[][..], &["--force"]] {
        let token = fake.token().to_string();
        let output = agent.command(&[&["enroll", &token], force].concat());
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("enrolled as host"), "{said}");
        let files: Vec<_> = fs::read_dir(&state).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().uid(), owner, "{file:?}");
        }
    }
    if is_root {
        // What a root of another time left is named, and nothing is done.
        chown(agent.state("lock"), Some(0), Some(0)).unwrap();
        let token = fake.token().to_string();
        let output = agent.command(&["enroll", "--force", &token]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let advice = format!("chown -R {SERVICE_USER}:{SERVICE_USER} {}", state.display());
        assert!(
            !output.status.success() && said.contains(advice.trim_end_matches('/')),
            "{said}"
        );
    }
}

/// An HTTP proxy; gives the head of each request for a tunnel.
fn proxy() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, received) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let heads = heads.clone();
            // A connection that breaks is the agent's business.
            std::thread::spawn(move || drop(tunnel(client, &heads)));
        }
    });
    (port, received)
}

fn tunnel(mut client: TcpStream, heads: &mpsc::Sender<String>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let target = head.split(' ').nth(1).unwrap_or("").to_owned();
    let _ = heads.send(head);
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back_from, mut back_to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Both);
    });
    io::copy(&mut reader, &mut server)?;
    server.shutdown(Shutdown::Both)
}

#[test]
fn an_agent_enrols_and_runs_through_a_proxy_that_wants_a_password() {
    let fake = Fake::start();
    let mut agent = Agent::new();
    let (port, heads) = proxy();
    let config = agent.dir.path().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    let proxy = format!("proxy = \"http://agent:hunter2@127.0.0.1:{port}\"");
    let text = format!("{text}[uplink]\n{proxy}\n");
    fs::write(&config, text).unwrap();

    let output = agent.command(&["enroll", &fake.token().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let head = heads.recv_timeout(DEADLINE).unwrap().to_lowercase();
    assert!(head.starts_with("connect localhost:"), "{head}");
    // "agent:hunter2" in base64, in the lower case of the whole head.
    let password = "proxy-authorization: basic ywdlbnq6ahvudgvymg==";
    assert!(head.contains(password), "{head}");

    agent.start();
    fake.arrival();
    let head = heads.recv_timeout(DEADLINE).unwrap().to_lowercase();
    assert!(head.contains(password), "{head}");

    let checked = agent.command(&["check-config"]);
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        printed.contains("agent:REDACTED@127.0.0.1") && !printed.contains("hunter2"),
        "{printed}"
    );
}

#[test]
fn a_log_that_the_agent_s_user_may_not_read_is_a_problem() {
    let fake = Fake::start();
    let mut agent = Agent::new();
    let is_root = fs::metadata(agent.dir.path()).unwrap().uid() == 0;
    let mut command = agent.program();
    if is_root {
        // As a user for whom modes count, with a copy of the program in a directory that it may search.
        let (state, program) = (agent.state(""), agent.dir.path().join("watchkeep-agent"));
        fs::create_dir(&state).unwrap();
        chown(&state, Some(SERVICE_USER), Some(SERVICE_USER)).unwrap();
        fs::set_permissions(agent.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(command.get_program(), &program).unwrap();
        let mut as_user = Command::new("setpriv");
        let user = SERVICE_USER.to_string();
        as_user
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
            .arg(program)
            .args(command.get_args());
        command = as_user;
    }
    let output = agent.command(&["enroll", &fake.token().to_string()]);
    assert!(output.status.success(), "{output:?}");
    agent.append("ERROR\n");
    fs::set_permissions(agent.log(), fs::Permissions::from_mode(0o000)).unwrap();
    fake.answer(with_policy(policy(&agent, Vec::new())));
    let log = fs::File::create(agent.dir.path().join("agent.log")).unwrap();
    agent.child = Some(command.arg("run").stderr(log).spawn().unwrap());
    let arrival = fake.arrival_that(|arrival| {
        let troubles = arrival.batch.troubles.iter().flatten();
        troubles.into_iter().any(|trouble| trouble.item == "logs")
    });
    let troubles = arrival.batch.troubles.unwrap();
    let detail = &troubles
        .iter()
        .find(|one| one.item == "logs")
        .unwrap()
        .detail;
    assert!(
        detail.contains("logs/app.log") && detail.contains("read-all-logs.conf"),
        "{detail}"
    );
}
