//! Brings the browser libraries from npm, as pinned by `package-lock.json`, and lays them and our
//! own `assets/` out for embedding. Writes only below `OUT_DIR`. `npm ci` runs again only when the
//! lock file changed. Without npm the build stops and says what to install.

use std::{
    env,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// File in a package, name under which it is served.
const LIBRARIES: [(&str, &str); 3] = [
    ("htmx.org/dist/htmx.min.js", "htmx.js"),
    ("uplot/dist/uPlot.iife.min.js", "uplot.js"),
    ("uplot/dist/uPlot.min.css", "uplot.css"),
];
const OWN: [&str; 6] = [
    "app.css",
    "app.js",
    "chart.js",
    "favicon.svg",
    "icons.svg",
    "live.js",
];
/// npm needs node anyway, so node packs the files too.
const GZIP: &str = "const fs=require('fs'),z=require('zlib');\
    for(const f of process.argv.slice(1))fs.writeFileSync(f+'.gz',z.gzipSync(fs.readFileSync(f),{level:9}))";

fn main() -> Result<(), String> {
    build().map_err(|error| format!("the web pages' files can't be built: {error}"))
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=package.json");
    println!("cargo::rerun-if-changed=package-lock.json");
    println!("cargo::rerun-if-changed=assets");
    println!("cargo::rerun-if-changed=templates");
    println!("cargo::rerun-if-changed=migrations");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let libraries = libraries(&out.join("npm"))?;
    let web = out.join("web");
    fs::create_dir_all(&web).map_err(|error| at(&web, &error))?;
    let mut files = Vec::new();
    for (from, name) in LIBRARIES {
        files.push((libraries.join(from), name));
    }
    for name in OWN {
        files.push((Path::new("assets").join(name), name));
    }
    let mut index = String::from("&[\n");
    let mut placed = Vec::new();
    for (from, name) in &files {
        let body = fs::read(from).map_err(|error| at(from, &error))?;
        let to = web.join(name);
        fs::write(&to, &body).map_err(|error| at(&to, &error))?;
        // Tells versions apart for caches; nobody is kept out by it.
        let mut hash = DefaultHasher::new();
        body.hash(&mut hash);
        let path = to.display();
        writeln!(
            index,
            "Asset {{ name: {name:?}, version: \"{:016x}\", plain: include_bytes!({:?}), gzip: include_bytes!({:?}) }},",
            hash.finish(),
            path.to_string(),
            format!("{path}.gz"),
        )
        .map_err(|error| error.to_string())?;
        placed.push(to);
    }
    index.push_str("]\n");
    let mut node = Command::new("node");
    run(node.arg("-e").arg(GZIP).args(&placed))?;
    let to = out.join("assets.rs");
    fs::write(&to, index).map_err(|error| at(&to, &error))
}

/// The `node_modules` folder that the lock file describes.
fn libraries(folder: &Path) -> Result<PathBuf, String> {
    let modules = folder.join("node_modules");
    // Written last, so that its content proves a complete install.
    let done = folder.join("installed.json");
    let lock = fs::read("package-lock.json").map_err(|error| at("package-lock.json", &error))?;
    if fs::read(&done).is_ok_and(|installed| installed == lock) && modules.is_dir() {
        return Ok(modules);
    }
    fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(name, folder.join(name)).map_err(|error| at(name, &error))?;
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut command = Command::new(npm);
    command
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ])
        .current_dir(folder);
    run(&mut command)?;
    fs::write(&done, lock).map_err(|error| at(&done, &error))?;
    Ok(modules)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "`{program}` was not found. Install Node.js 20 or newer with npm (Debian: \
             `apt-get install nodejs npm`) and build again"
        ),
        _ => format!("`{program}` could not be started: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{program}` failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn at(path: impl AsRef<Path>, error: &io::Error) -> String {
    format!("{}: {error}", path.as_ref().display())
}
