//! Packs files into an image archive, as `docker save` writes it. For samples and tests.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

const USAGE: &str = "usage: xtask image --name NAME [--name ANOTHER ...] --out FILE [options]
  --layer DIR|TAR        a directory whose tree becomes the next layer (.wh. names are whiteouts), or the layer as it is
  --file SOURCE:TARGET[:MODE[:UID]]
                         a file of the last layer, MODE octal (default 0755), UID also the group (default 0)
  --dir PATH[:MODE[:UID]]
                         an empty directory of the last layer (default 0755)
  --entrypoint WORD      repeat for more words
  --cmd WORD             repeat for more words
  --env NAME=VALUE       repeat for more
  --user USER            name or number
  --workdir PATH
  --port NUMBER";

#[derive(Default)]
struct Spec {
    names: Vec<String>,
    out: String,
    layers: Vec<Layer>,
    files: Vec<String>,
    dirs: Vec<String>,
    lists: BTreeMap<&'static str, Vec<String>>,
    user: String,
    workdir: String,
}

struct Layer {
    tar: Vec<u8>,
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let spec = parse(words)?;
    let out = spec.out.clone();
    write(spec).map_err(|e| format!("write {out}: {e}"))
}

fn parse(words: &[String]) -> Result<Spec, String> {
    let mut spec = Spec::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word} wants a value\n{USAGE}"));
        match word.as_str() {
            "--name" => spec.names.push(value()?),
            "--out" => spec.out = value()?,
            "--layer" => {
                let source = value()?;
                let layer = layer(Path::new(&source)).map_err(|e| format!("pack {source}: {e}"))?;
                spec.layers.push(layer);
            }
            "--file" => spec.files.push(value()?),
            "--dir" => spec.dirs.push(value()?),
            "--entrypoint" => spec.lists.entry("Entrypoint").or_default().push(value()?),
            "--cmd" => spec.lists.entry("Cmd").or_default().push(value()?),
            "--env" => spec.lists.entry("Env").or_default().push(value()?),
            "--port" => spec.lists.entry("port").or_default().push(value()?),
            "--user" => spec.user = value()?,
            "--workdir" => spec.workdir = value()?,
            _ => return Err(format!("unknown option {word}\n{USAGE}")),
        }
    }
    if spec.names.is_empty() || spec.out.is_empty() {
        return Err(USAGE.into());
    }
    Ok(spec)
}

/// A layer that is packed already, or a directory's tree with its modes and owners.
fn layer(source: &Path) -> io::Result<Layer> {
    if !source.is_dir() {
        return Ok(Layer { tar: fs::read(source)? });
    }
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all("", source)?;
    Ok(Layer { tar: tar.into_inner()? })
}

fn owned(kind: tar::EntryType, mode: &str, owner: Option<&str>) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(u32::from_str_radix(mode, 8).map_err(io::Error::other)?);
    let owner = owner.unwrap_or("0").parse().map_err(io::Error::other)?;
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(0);
    Ok(header)
}

/// The layer of the `--file` and `--dir` options.
fn listed(spec: &Spec) -> io::Result<Option<Layer>> {
    if spec.files.is_empty() && spec.dirs.is_empty() {
        return Ok(None);
    }
    let mut tar = tar::Builder::new(Vec::new());
    for dir in &spec.dirs {
        let mut parts = dir.split(':');
        let path = parts.next().unwrap_or_default().trim_start_matches('/').to_owned() + "/";
        let mut header = owned(tar::EntryType::Directory, parts.next().unwrap_or("0755"), parts.next())?;
        tar.append_data(&mut header, path, io::empty())?;
    }
    for file in &spec.files {
        let mut parts = file.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let content = fs::read(source).map_err(|e| io::Error::new(e.kind(), format!("{source}: {e}")))?;
        let mut header = owned(tar::EntryType::Regular, parts.next().unwrap_or("0755"), parts.next())?;
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, target.trim_start_matches('/'), &content[..])?;
    }
    Ok(Some(Layer { tar: tar.into_inner()? }))
}

fn write(mut spec: Spec) -> io::Result<()> {
    let last = listed(&spec)?;
    spec.layers.extend(last);
    let list = |key: &str| spec.lists.get(key).cloned();
    let ports: BTreeMap<String, serde_json::Value> =
        list("port").into_iter().flatten().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let diff_ids: Vec<String> = spec.layers.iter().map(|layer| format!("sha256:{}", hex(&layer.tar))).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": list("Entrypoint"), "Cmd": list("Cmd"), "Env": list("Env"),
            "User": spec.user, "WorkingDir": spec.workdir, "ExposedPorts": ports,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let names: Vec<String> = spec.layers.iter().map(|layer| format!("{}/layer.tar", hex(&layer.tar))).collect();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{"Config": config_name, "RepoTags": spec.names, "Layers": names}]).to_string();
    let mut archive = tar::Builder::new(io::BufWriter::new(fs::File::create(&spec.out)?));
    let mut add = |path: &str, content: &[u8]| {
        let mut header = owned(tar::EntryType::Regular, "0644", None)?;
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    for (name, layer) in names.iter().zip(&spec.layers) {
        add(name, &layer.tar)?;
    }
    add(&config_name, config.as_bytes())?;
    add("manifest.json", manifest.as_bytes())?;
    archive.into_inner()?.flush()
}

/// Architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
