//! A path to PostgreSQL that swallows the packets of connections that exist, as a firewall does that
//! lost its table: nothing is refused, nothing arrives, and new connections work.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::copy,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use watchkeep_collector::store::{Store, StoreError, StoreUrl, fleet};

use crate::support::{Kind, NOW, run};

/// A statement's limit and a little more. The kernel alone would take a quarter of an hour.
const SOON: Duration = Duration::from_secs(12);

/// Forwards connections; those that exist when [`Path::swallow`] is called are forgotten.
struct Path {
    address: SocketAddr,
    forgotten: watch::Sender<u64>,
}

impl Path {
    #[expect(clippy::disallowed_methods, reason = "not the program's own tasks")]
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (forgotten, _) = watch::channel(0);
        let events = forgotten.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, events.subscribe()));
            }
        });
        Self { address, forgotten }
    }

    fn swallow(&self) {
        self.forgotten.send_modify(|n| *n += 1);
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, mut forgotten: watch::Receiver<u64>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => return,
        _ = copy(&mut from_server, &mut to_client) => return,
        _ = forgotten.changed() => {}
    }
    // Neither end learns of it: the sockets stay open.
    std::future::pending::<()>().await;
}

/// The store of a test, by way of a path.
async fn store_behind_path(url: &str) -> (Store, Path) {
    let (rest, database) = url.rsplit_once('/').unwrap();
    let (rest, server) = rest.rsplit_once('@').unwrap();
    let path = Path::to(server.parse().expect("an address of loopback")).await;
    let url = format!("{rest}@{}/{database}", path.address);
    let store = Store::open(&StoreUrl::Postgres(url)).await.unwrap();
    (store, path)
}

async fn write(store: &Store, name: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    fleet::ensure_client(&mut tx, name, NOW).await?;
    tx.commit().await
}

async fn write_and_read(store: &Store, name: &str) -> Result<(), StoreError> {
    write(store, name).await?;
    fleet::sites(store).await.map(drop)
}

#[test]
fn a_path_that_swallows_packets_is_left_within_seconds() {
    run(Kind::Postgres, async |bench| {
        let (store, path) = store_behind_path(&bench.url).await;
        // As many connections as the pools have.
        let all = (0..16).map(|n| {
            let store = store.clone();
            async move { write_and_read(&store, &format!("client {n}")).await }
        });
        for outcome in futures_util::future::join_all(all).await {
            outcome.unwrap();
        }
        let mut tx = store.begin().await.unwrap();
        path.swallow();

        // Under way when it happened.
        let begun = Instant::now();
        fleet::ensure_client(&mut tx, "lost", NOW)
            .await
            .unwrap_err();
        drop(tx);
        let noticed_in = begun.elapsed();
        // All others after it, at once.
        let mut failures = 0;
        while let Err(error) = write_and_read(&store, "again").await {
            failures += 1;
            assert!(failures < 3, "{error}");
        }
        let back_in = begun.elapsed();
        assert!(
            back_in < SOON,
            "noticed after {noticed_in:?}, back after {back_in:?}"
        );
        let others = (0..4).map(|n| {
            let store = store.clone();
            async move { write_and_read(&store, &format!("later {n}")).await }
        });
        for outcome in futures_util::future::join_all(others).await {
            outcome.unwrap();
        }
        store.close().await;
    });
}
