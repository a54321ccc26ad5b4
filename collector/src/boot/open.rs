//! Opening what a collector needs: the data directory, the CA, and the store, which is migrated only
//! by the server and on request.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use uuid::Uuid;

use crate::{
    app::App,
    clock::Clock,
    config::Config,
    identity::{self, Authority, Cas},
    ids::RowIds,
    live::Live,
    notify::Delivery,
    policies::Policies,
    process::Process,
    store::{BeforeMigration, IfMissing, SCHEMA_VERSION, Store, StoreUrl, Upgraded},
};

/// Exclusive use of a data directory.
const LOCK_FILE: &str = "collector.lock";
/// This collector's name among those on one store.
const NODE_FILE: &str = "node-id";

/// The parts that commands and the server share.
#[derive(Debug)]
pub struct Opened {
    /// What the parts share.
    pub app: App,
    /// The CAs.
    pub authority: Arc<Authority>,
    /// Held since before a migration.
    pub(super) lock: Option<std::fs::File>,
}

/// What is done with a store of an older version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfOlder {
    Refuse,
    Migrate(BeforeMigration),
}

/// Makes the data directory, the CA and the store, where they are missing.
pub async fn init(config: Config) -> anyhow::Result<Opened> {
    let dir = config.data_dir.clone();
    make_private_dir(&dir)?;
    make_private_dir(&dir.join(identity::CA_DIR))?;
    let clock = Clock::system();
    let cas = Cas::init(&dir.join(identity::CA_DIR), clock.now())?;
    node_id(&dir)?;
    let migrate = IfOlder::Migrate(BeforeMigration::Copy);
    opened(config, (clock, cas), migrate).await
}

/// Opens what `init` made. A store of an older version is refused: only the server and `migrate`
/// change it.
pub async fn open(config: Config) -> anyhow::Result<Opened> {
    let cas = open_cas(&config)?;
    opened(config, (Clock::system(), cas), IfOlder::Refuse).await
}

/// Opens what `init` made, for the server: a store of an older version is migrated.
pub async fn open_to_serve(config: Config) -> anyhow::Result<Opened> {
    let cas = open_cas(&config)?;
    let migrate = IfOlder::Migrate(BeforeMigration::Copy);
    opened(config, (Clock::system(), cas), migrate).await
}

/// Migrates the store. `None` if it has this program's version.
pub async fn migrate(config: Config, before: BeforeMigration) -> anyhow::Result<Option<Upgraded>> {
    let store = Store::connect(&config.store, IfMissing::Fail)
        .await
        .with_context(|| format!("failed to open the store {:?}", config.store))?;
    let (upgraded, _lock) = upgrade(&store, &config, before).await?;
    store.close().await;
    Ok(upgraded)
}

fn open_cas(config: &Config) -> anyhow::Result<Cas> {
    let dir = config.data_dir.join(identity::CA_DIR);
    Cas::open(&dir).with_context(|| {
        format!(
            "{} holds no certificate authority: run `watchkeep-collector init` first",
            dir.display()
        )
    })
}

/// Opens the store. Returns the lock of the data directory, too, if there was a migration.
async fn open_store(
    config: &Config,
    if_older: IfOlder,
) -> anyhow::Result<(Store, Option<std::fs::File>)> {
    let url = &config.store;
    let failed = || format!("failed to open the store {url:?}");
    match if_older {
        IfOlder::Refuse => {
            let store = Store::open_current(url).await.with_context(failed)?;
            Ok((store, None))
        }
        IfOlder::Migrate(before) => {
            let store = Store::connect(url, IfMissing::Create)
                .await
                .with_context(failed)?;
            let (_, lock) = upgrade(&store, config, before).await?;
            Ok((store, lock))
        }
    }
}

/// Migrates a store that needs it, while no other collector runs on this data directory.
async fn upgrade(
    store: &Store,
    config: &Config,
    before: BeforeMigration,
) -> anyhow::Result<(Option<Upgraded>, Option<std::fs::File>)> {
    let from = store.version().await?;
    if from == SCHEMA_VERSION {
        return Ok((None, None));
    }
    let lock = lock(&config.data_dir)?;
    if from > 0 && matches!(config.store, StoreUrl::Postgres(_)) {
        tracing::warn!(
            "the store is migrated from version {from} to {SCHEMA_VERSION}; of a PostgreSQL store no copy is made, use pg_dump before an upgrade"
        );
    }
    let upgraded = store.upgrade(&config.store, before).await?;
    if let Some(Upgraded {
        from,
        copy: Some(copy),
    }) = &upgraded
    {
        tracing::info!(
            "the store was migrated from version {from} to {SCHEMA_VERSION}; as it was before it is in {}",
            copy.display()
        );
    }
    Ok((upgraded, Some(lock)))
}

async fn opened(
    config: Config,
    (clock, cas): (Clock, Cas),
    if_older: IfOlder,
) -> anyhow::Result<Opened> {
    let url = config.store.clone();
    let (store, lock) = open_store(&config, if_older).await?;
    // The key is in the file's hands, and so are all customers' data.
    if let StoreUrl::Sqlite(path) = &url {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    let app = App {
        store,
        clock,
        live: Arc::new(Live::default()),
        policies: Arc::new(Policies::new(config.policy.clone())),
        delivery: Arc::new(Delivery::default()),
        history: Arc::default(),
        ids: Arc::new(RowIds::for_command()),
        config: Arc::new(config),
        process: Process::new(),
    };
    let dir = app.config.data_dir.join(identity::CA_DIR);
    Ok(Opened {
        app,
        authority: Arc::new(Authority::new(dir, cas)),
        lock,
    })
}

pub(super) fn lock(dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = dir.join(LOCK_FILE);
    let file = std::fs::File::create(&path)
        .with_context(|| format!("failed to make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another collector runs on {}: stop it first", dir.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

pub(super) fn node_id(dir: &Path) -> anyhow::Result<Uuid> {
    let path: PathBuf = dir.join(NODE_FILE);
    if let Ok(text) = std::fs::read_to_string(&path) {
        return text
            .trim()
            .parse()
            .with_context(|| format!("{} holds no UUID", path.display()));
    }
    let id = Uuid::new_v4();
    identity::write_file(&path, &id.to_string(), 0o644)?;
    Ok(id)
}

fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("failed to make {}", dir.display()))?;
    // It may have been there before, open to others; what is in it is for this user alone.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("failed to close {} to others", dir.display()))
}
