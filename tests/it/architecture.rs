//! Which part may know which: the dependency directions of the workspace, held by reading its
//! source and asking cargo. The same rules stand in ARCHITECTURE.md in words.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// A folder and what no file in it may name.
struct Rule {
    under: &'static str,
    /// Files and folders in it that may.
    except: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        under: "shared/src",
        except: &[],
        forbidden: &[
            "sqlx", "axum", "reqwest", "sysinfo", "tokio", "rustls", "std::fs", "std::net",
        ],
        why: "what crosses the wire does no I/O",
    },
    Rule {
        under: "collector/core/src",
        except: &[],
        forbidden: &[
            "sqlx",
            "axum",
            "reqwest",
            "tokio",
            "tracing",
            "SystemTime",
            "Instant::now",
            "std::fs",
            "std::net",
            "async fn",
        ],
        why: "decisions are pure: values and a given now, nothing else",
    },
    Rule {
        under: "collector/src",
        except: &["store"],
        forbidden: &["sqlx::"],
        why: "the store is the only module that knows the database",
    },
    Rule {
        under: "collector/src",
        except: &[
            "web",
            "lib.rs",
            "cli",
            "boot",
            "boot.rs",
            "server",
            "metrics.rs",
        ],
        forbidden: &["crate::web"],
        why: "pages may read anything and are imported by nothing but the start-up",
    },
    Rule {
        under: "collector/src",
        except: &[],
        forbidden: &["watchkeep_agent", "sysinfo"],
        why: "the programs do not import each other",
    },
    Rule {
        under: "agent/src",
        except: &[],
        forbidden: &["watchkeep_collector", "watchkeep_core", "sqlx", "axum"],
        why: "the programs do not import each other",
    },
    Rule {
        under: "agent/src",
        except: &["sampler"],
        forbidden: &["sysinfo::"],
        why: "the sampler is the only user of sysinfo",
    },
];

/// Domains of the pure package, each of which may use only those before it.
const CORE_ORDER: &[&str] = &[
    "ids",
    "duration",
    "timeline",
    "text",
    "authority",
    "policy",
    "evidence",
    "host",
    "series",
    "rules",
    "wording",
    "alerts",
    "tickets",
    "incidents",
    "delivery",
    "ledger",
];

/// What the pure package's closure of dependencies must not hold.
const IMPURE: &[&str] = &["tokio", "sqlx", "axum", "reqwest", "hyper", "rustls", "mio"];

#[test]
fn no_file_names_what_its_folder_must_not_know() -> Result<()> {
    let mut faults = Vec::new();
    for rule in RULES {
        let root = workspace().join(rule.under);
        for file in rust_files(&root)? {
            let inner = file.strip_prefix(&root)?;
            if rule.except.iter().any(|except| inner.starts_with(except)) {
                continue;
            }
            let code = code_of(&file)?;
            for word in rule.forbidden.iter().filter(|word| names_path(&code, word)) {
                faults.push(format!("{} names {word}: {}", file.display(), rule.why));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn pure_domains_use_only_those_before_them() -> Result<()> {
    let root = workspace().join("collector/core/src");
    let mut faults = Vec::new();
    for file in rust_files(&root)? {
        let inner = file.strip_prefix(&root)?;
        let Some(own) = CORE_ORDER.iter().position(|domain| belongs(inner, domain)) else {
            continue;
        };
        let code = code_of(&file)?;
        for later in &CORE_ORDER[own + 1..] {
            if names_path(&code, &format!("crate::{later}")) {
                let own = CORE_ORDER[own];
                faults.push(format!("{}: {own} uses {later}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn the_pure_package_is_built_without_any_io_library() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "watchkeep-core",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--offline", "--locked"])
        .current_dir(workspace())
        .output()?;
    let tree = String::from_utf8(output.stdout)?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let crates: Vec<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(crates.contains(&"watchkeep-shared"), "{tree}");
    let is_impure = |name: &&&str| {
        IMPURE.iter().any(|impure| {
            let rest = name.strip_prefix(impure);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    assert_eq!(
        crates.iter().find(is_impure),
        None,
        "watchkeep-core must stay pure"
    );
    Ok(())
}

#[test]
fn words_are_found_as_words_and_comments_are_no_code() {
    assert!(names("use sqlx::Pool;", "sqlx"));
    assert!(names("use crate::web::router;", "crate::web"));
    assert!(!names("use crate::webhook;", "crate::web"));
    assert!(!names("let my_tokio = 1;", "tokio"));
    let grouped = "use crate::{\n app::App,\n store::{tickets, Store}, web,\n};";
    for (module, expected) in [
        ("app", true),
        ("store", true),
        ("web", true),
        ("tickets", false),
    ] {
        let found = names_path(grouped, &format!("crate::{module}"));
        assert_eq!(found, expected, "{module}");
    }
    let code = strip_comments("use a; // tokio\n/// axum\nuse b;");
    assert!(!names(&code, "tokio") && !names(&code, "axum") && names(&code, "b"));
}

/// Packages and the folders of their code.
const PACKAGES: &[(&str, &[&str])] = &[
    ("agent", &["src", "tests", "build.rs"]),
    ("collector", &["src", "tests", "build.rs"]),
    ("collector/core", &["src", "tests"]),
    // Its fuzz bodies include a file of tests/fuzz.
    ("shared", &["src", "tests", "../tests/fuzz"]),
    ("tests", &["src", "it", "machine", "fuzz"]),
];

/// A dependency that no line of a package names costs build time and an audit for nothing.
#[test]
fn every_dependency_is_used() -> Result<()> {
    let mut unused = Vec::new();
    for (package, folders) in PACKAGES {
        let root = workspace().join(package);
        let mut code = String::new();
        for folder in *folders {
            let path = root.join(folder);
            if path.is_dir() {
                for file in rust_files(&path)? {
                    code += &code_of(&file)?;
                }
            } else if path.exists() {
                code += &code_of(&path)?;
            }
        }
        let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
        for name in dependencies(&manifest) {
            let path = name.replace('-', "_");
            let is_used =
                names(&code, &format!("{path}::")) || names(&code, &format!("use {path}"));
            if !is_used {
                unused.push(format!("{package}/Cargo.toml: {name}"));
            }
        }
    }
    assert!(unused.is_empty(), "not used:\n{}", unused.join("\n"));
    Ok(())
}

/// The names in the dependency tables of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut within = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = line.contains("dependencies]");
        } else if within && let Some((key, _)) = line.split_once('=') {
            let name = key.split('.').next().unwrap_or_default().trim();
            if !name.is_empty() && !name.starts_with('#') {
                names.push(name.to_owned());
            }
        }
    }
    names
}

fn belongs(file: &Path, domain: &str) -> bool {
    file.starts_with(domain) || file == Path::new(&format!("{domain}.rs"))
}

/// The same as [`names`]; `crate::X` is also found as `crate::{.., X, ..}`.
fn names_path(code: &str, word: &str) -> bool {
    let grouped = word.strip_prefix("crate::").is_some_and(|module| {
        let groups = code.match_indices("crate::{");
        groups
            .into_iter()
            .any(|(at, opening)| heads(&code[at + opening.len()..]).contains(&module))
    });
    grouped || names(code, word)
}

/// The first names of the paths in a group, whose opening brace was just read.
fn heads(group: &str) -> Vec<&str> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                heads.push(
                    group[start..at]
                        .split("::")
                        .next()
                        .unwrap_or_default()
                        .trim(),
                );
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

/// Whether `word` stands in `code` and is not part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let joins = word.ends_with(':') || !after.is_some_and(part_of_name);
        !before.is_some_and(part_of_name) && joins
    })
}

fn code_of(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(strip_comments(&text))
}

fn strip_comments(text: &str) -> String {
    let code = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
