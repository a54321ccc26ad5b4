//! From settings to a running collector: opens the store and the CA, binds both ports, starts the
//! pipeline and the workers, and stops them in order.

mod open;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use watchkeep_shared::DurationMs;

pub use self::open::{Opened, init, migrate, open, open_to_serve};
use self::open::{lock, node_id};
use crate::{
    app::App,
    config::MinTls,
    identity::{self, Authority, PortNames, PortTls, Revoked, SharedTls},
    ids::RowIds,
    ingest::{Pipeline, Room, http, metrics::Metrics, seal},
    notify::{self, Channels},
    own,
    repeat::every,
    retention,
    server::{self, Limits, Port},
    store::{StoreError, identity as identity_rows},
    tickets, web,
};

/// How often the revocations of other programs (the command line) are read.
const REVOKED_EVERY: Duration = Duration::from_secs(1);
/// How often the CAs are checked for changes.
const AUTHORITY_EVERY: Duration = Duration::from_secs(1);
/// How often policies are checked for changes by other programs.
const POLICIES_EVERY: Duration = Duration::from_secs(1);
/// How often the system's wall clock is compared with the collector's.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// How often a wall clock that was set is logged.
const CLOCK_LOGGED_EVERY: DurationMs = DurationMs::from_hours(1);
/// How often escalations and evidence are due.
const WORKER_EVERY: Duration = Duration::from_millis(500);
/// How often hours are checked for sealing.
const SEAL_EVERY: Duration = Duration::from_mins(1);
/// How often the collector looks after the tickets about itself.
const OWN_EVERY: Duration = Duration::from_secs(10);
/// How often rows past their retention are deleted.
const EXPIRE_EVERY: Duration = Duration::from_mins(10);
/// An agent's connection is kept for so long without a request. One that sends a heartbeat every ten
/// minutes connects anew each time.
const AGENT_IDLE: Duration = Duration::from_mins(2);
/// A client of the agents' port without a certificate can only enrol.
const STRANGER_IDLE: Duration = Duration::from_secs(10);
/// A browser's connection is kept for this long without a request.
const WEB_IDLE: Duration = Duration::from_secs(30);
/// Connections without a finished handshake, at once. Over it the oldest are disconnected.
const MAX_PENDING: usize = 4_096;
/// The same for one address. Many agents may share one, and connect all at once.
const MAX_PENDING_PER_ADDRESS: usize = 512;
/// How long everything may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// A collector that serves.
#[derive(Debug)]
pub struct Running {
    /// What the parts share.
    pub app: App,
    /// The CAs.
    pub authority: Arc<Authority>,
    _lock: std::fs::File,
}

/// Starts everything. Ready when it returns.
pub async fn start(opened: Opened) -> anyhow::Result<Running> {
    let Opened {
        mut app,
        authority,
        lock: held,
    } = opened;
    for name in &app.config.ignored_variables {
        tracing::warn!("{name} is no setting of the collector and is ignored");
    }
    let lock = match held {
        Some(lock) => lock,
        None => lock(&app.config.data_dir)?,
    };
    let node = node_id(&app.config.data_dir)?;
    app.ids = Arc::new(RowIds::new(node.as_bytes()[15]));
    let metrics = Arc::new(Metrics::default());
    metrics.register_more(|registry| {
        app.delivery.register(registry);
        app.history.register(registry);
    });
    let revoked = Arc::new(Revoked::default());
    read_revoked(&app, &revoked).await?;
    app.policies.refresh(&app.store).await?;
    app.config.check_files()?;
    let channels = Channels::new(&app.config)?;
    let agents = bind(app.config.agents.listen, "agents.listen").await?;
    let web_listener = bind(app.config.web.listen, "web.listen").await?;
    let (inbox, queue) = mpsc::channel(app.config.agents.queue_batches);
    let pipeline = Pipeline::begin(app.clone(), node, Arc::clone(&metrics), queue).await?;
    let knocks = pipeline.knocks();
    app.process.spawn_essential("pipeline", pipeline.run());
    let port = http::AgentPort {
        app: app.clone(),
        authority: Arc::clone(&authority),
        revoked: Arc::clone(&revoked),
        inbox,
        room: Arc::new(Room::new(
            app.config.agents.queue_mib as usize * 1024 * 1024,
        )),
        knocks,
        metrics: Arc::clone(&metrics),
        decoders: Arc::default(),
        rates: Arc::new(http::Rates::new(&app.config.agents)),
    };
    let tls = port_tls(&app, Arc::clone(&authority))?;
    serve_agents(&app, tls.agents(), agents, port);
    serve_web(&app, tls.web(), web_listener, &metrics)?;
    refresh_port_tls(&app, tls);
    watch_clock(&app, metrics);
    notify::begin(&app).await?;
    notify::start(&app, &channels);
    spawn_workers(&app, revoked);
    expire_old_rows(&app);
    watch_itself(&app);
    Ok(Running {
        app,
        authority,
        _lock: lock,
    })
}

impl Running {
    /// Runs until a signal or a failure, then stops in order.
    pub async fn until_stopped(self) -> anyhow::Result<()> {
        self.until_signal().await?;
        self.stop().await
    }

    /// Waits for SIGTERM, SIGINT or a failure.
    pub async fn until_signal(&self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM, stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT, stopping"),
            () = self.app.process.stop.cancelled() => {}
        }
        Ok(())
    }

    /// Stops: no new requests, the queue is answered, states are written, the store is closed. A
    /// second signal or the time limit cuts it short; nothing acknowledged is lost by that.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        self.app.process.stop.cancel();
        let stopped = tokio::select! {
            stopped = tokio::time::timeout(STOP_TIMEOUT, self.app.process.wait()) => stopped.is_ok(),
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        if stopped {
            self.app.store.close().await;
        } else {
            tracing::warn!("stopped without waiting for everything to end");
        }
        if self.app.process.has_failed() {
            bail!("a part of the collector failed; the log says which");
        }
        Ok(())
    }
}

fn port_tls(app: &App, authority: Arc<Authority>) -> anyhow::Result<PortTls> {
    let (agents, web) = (&app.config.agents, &app.config.web);
    let names = PortNames {
        agents: server_names(&agents.public_url, &agents.names),
        web: server_names(&web.public_url, &[]),
        web_files: web.certificate.clone().zip(web.key.clone()),
        web_tls12: web.min_tls == MinTls::V12,
    };
    Ok(PortTls::new(authority, names, app.clock.clone())?)
}

/// What the command line does to the CAs reaches the running collector.
fn refresh_port_tls(app: &App, tls: PortTls) {
    every(app, "certificate authorities", AUTHORITY_EVERY, move || {
        std::future::ready(tls.refresh().map_err(|error| error.to_string()))
    });
}

/// Reports a wall clock that was set: in the log when it happens and each hour, and as a metric.
fn watch_clock(app: &App, metrics: Arc<Metrics>) {
    let (clock, logged_at) = (app.clock.clone(), Mutex::new(None));
    every(app, "clock", CLOCK_EVERY, move || {
        metrics.clock_ahead_ms.set(clock.ahead_of_wall().0);
        let (now, problem) = (clock.now(), clock.problem());
        let mut logged_at = logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged_at.is_none_or(|at| now.since(at) >= CLOCK_LOGGED_EVERY);
        match problem {
            Some(problem) if is_due => {
                tracing::error!("{problem}");
                *logged_at = Some(now);
            }
            Some(_) => {}
            None => *logged_at = None,
        }
        std::future::ready(Ok::<(), String>(()))
    });
}

fn serve_agents(app: &App, tls: SharedTls, listener: TcpListener, port: http::AgentPort) {
    let agents = &app.config.agents;
    let port = Port {
        name: "agents",
        tls,
        router: http::router(port),
        describe: http::describe,
        idle: |tls| {
            if tls.peer_certificates().is_some() {
                AGENT_IDLE
            } else {
                STRANGER_IDLE
            }
        },
        limits: Limits {
            connections: agents.max_connections,
            per_address: agents.max_connections_per_address,
            pending: MAX_PENDING,
            pending_per_address: MAX_PENDING_PER_ADDRESS,
        },
        max_handshakes: agents.max_handshakes,
    };
    tracing::info!(address = %agents.listen, "agents' port is open");
    app.process.spawn_essential(
        "agents port",
        server::serve(listener, port, app.process.clone()),
    );
}

fn serve_web(
    app: &App,
    tls: SharedTls,
    listener: TcpListener,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<()> {
    let settings = &app.config.web;
    let metrics = Arc::clone(metrics);
    let (alive, clock) = (Arc::clone(&metrics), app.clock.clone());
    let ready = move || alive.is_alive(clock.now());
    let probes = web::Probes {
        ready: Arc::new(ready),
        metrics: Arc::new(move || metrics.render()),
    };
    let router = web::router_with(app.clone(), probes)?;
    let port = Port {
        name: "web",
        tls,
        router,
        describe: |_, peer, extensions| {
            extensions.insert(web::PeerAddr(peer));
        },
        idle: |_| WEB_IDLE,
        limits: Limits {
            connections: settings.max_connections,
            per_address: settings.max_connections_per_address,
            pending: MAX_PENDING,
            pending_per_address: MAX_PENDING_PER_ADDRESS,
        },
        max_handshakes: app.config.agents.max_handshakes,
    };
    tracing::info!(address = %settings.listen, "web port is open");
    app.process.spawn_essential(
        "web port",
        server::serve(listener, port, app.process.clone()),
    );
    Ok(())
}

fn spawn_workers(app: &App, revoked: Arc<Revoked>) {
    let here = app.clone();
    every(app, "revocations", REVOKED_EVERY, move || {
        let (app, revoked) = (here.clone(), Arc::clone(&revoked));
        async move { read_revoked(&app, &revoked).await }
    });
    let here = app.clone();
    every(app, "policies", POLICIES_EVERY, move || {
        let app = here.clone();
        async move { app.policies.refresh(&app.store).await }
    });
    let here = app.clone();
    every(app, "escalation", WORKER_EVERY, move || {
        let app = here.clone();
        async move {
            let now = app.clock.now();
            tickets::carry_out_due(&app, now).await.map(drop)
        }
    });
    let here = app.clone();
    every(app, "evidence of tickets", WORKER_EVERY, move || {
        let app = here.clone();
        async move {
            let now = app.clock.now();
            tickets::keep_evidence(&app, now).await.map(drop)
        }
    });
    let here = app.clone();
    every(app, "sealer", SEAL_EVERY, move || {
        let app = here.clone();
        async move {
            let app = App {
                store: app.store.patient(),
                ..app
            };
            let sealed = seal::seal(&app, app.clock.now()).await?;
            if sealed.rows > 0 {
                tracing::info!(rows = sealed.rows, chunks = sealed.chunks, "history sealed");
            }
            Ok::<(), StoreError>(())
        }
    });
}

/// Opens and ends the tickets about the collector itself.
fn watch_itself(app: &App) {
    let here = app.clone();
    every(app, "the collector's own tickets", OWN_EVERY, move || {
        let app = here.clone();
        async move { own::tend(&app, app.clock.now()).await }
    });
}

/// Deletes what is past its retention.
fn expire_old_rows(app: &App) {
    let here = app.clone();
    every(app, "retention", EXPIRE_EVERY, move || {
        let app = App {
            store: here.store.patient(),
            ..here.clone()
        };
        async move {
            let expired = retention::expire(&app, app.clock.now()).await?;
            if expired != retention::Expired::default() {
                let retention::Expired {
                    events,
                    audit,
                    set_aside,
                } = expired;
                tracing::info!(
                    events,
                    audit,
                    set_aside,
                    "rows past their retention deleted"
                );
            }
            Ok::<(), StoreError>(())
        }
    });
}

async fn read_revoked(app: &App, revoked: &Revoked) -> Result<(), StoreError> {
    revoked.set(identity_rows::revoked(&app.store, app.clock.now()).await?);
    Ok(())
}

async fn bind(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: failed to listen on {address}: is another program there?"))
}

fn server_names(public_url: &str, more: &[String]) -> Vec<String> {
    let mut names: Vec<String> = identity::host_of(public_url).into_iter().collect();
    names.extend(more.iter().cloned());
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    names
}
