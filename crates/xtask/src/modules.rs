//! Modules of a crate need each other in no circle: of two that stand beside each other, at whatever depth, one can be
//! read without the other. A module and what is inside it may need each other.
//!
//! Read from the text: `use` lines and paths that begin with `crate`, `self` or `super`, without tests. What a `pub use`
//! gives on is followed to where it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A module by the names of those around it; the crate itself is empty.
type Module = Vec<String>;

/// Which modules of each directory need which beside them, with a file that shows it.
type Needs = BTreeMap<Module, BTreeMap<Module, PathBuf>>;

/// The circles among the modules of a crate: each as its modules, and the files where they need each other.
pub(crate) fn circles(sources: &[(PathBuf, String)]) -> Vec<String> {
    let needs = needs(sources);
    let mut found = BTreeSet::new();
    for start in needs.keys() {
        let circle: BTreeSet<&Module> =
            reachable(&needs, start).into_iter().filter(|other| reachable(&needs, other).contains(start)).collect();
        if !circle.is_empty() {
            found.insert(circle);
        }
    }
    found.into_iter().map(|circle| told(&needs, &circle)).collect()
}

fn told(needs: &Needs, circle: &BTreeSet<&Module>) -> String {
    let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
    let inside = circle.iter().flat_map(|module| needs[*module].iter().filter(|(other, _)| circle.contains(other)));
    let files: BTreeSet<String> = inside.map(|(_, file)| file.display().to_string()).collect();
    format!(
        "modules {} need each other: move what they share below them (see {})",
        names.join(", "),
        files.into_iter().collect::<Vec<_>>().join(", ")
    )
}

/// What is needed by a module, directly or not; itself only where a circle leads back.
fn reachable<'a>(needs: &'a Needs, start: &Module) -> BTreeSet<&'a Module> {
    let mut open: Vec<&Module> = needs.get(start).into_iter().flat_map(BTreeMap::keys).collect();
    let mut seen = BTreeSet::new();
    while let Some(module) = open.pop() {
        if seen.insert(module) {
            open.extend(needs.get(module).into_iter().flat_map(BTreeMap::keys));
        }
    }
    seen
}

fn needs(sources: &[(PathBuf, String)]) -> Needs {
    let texts: BTreeMap<Module, (&PathBuf, String)> = sources
        .iter()
        .filter(|(path, _)| path.file_stem().is_none_or(|stem| stem != "tests"))
        .map(|(path, text)| (module_of(path), (path, without_tests(text))))
        .collect();
    let known: BTreeSet<&Module> = texts.keys().collect();
    let mut given_on: BTreeMap<Module, Module> = BTreeMap::new();
    let mut paths = Vec::new();
    for (module, (file, text)) in &texts {
        for (public, path) in named(text) {
            let Some(absolute) = absolute(module, &path, &known) else { continue };
            if public && let Some(name) = absolute.last() {
                given_on.insert([module.as_slice(), std::slice::from_ref(name)].concat(), absolute.clone());
            }
            paths.push((module, *file, absolute));
        }
    }
    let mut needs = Needs::new();
    for (module, file, path) in paths {
        let target = home(path, &given_on, &known);
        if let Some((from, to)) = beside(module, &target) {
            needs.entry(from).or_default().entry(to).or_insert_with(|| file.clone());
        }
    }
    needs
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module_of(path: &Path) -> Module {
    let parts = path.with_extension("");
    let parts = parts.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let mut module: Module = parts.skip_while(|part| part != "src").skip(1).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// The text without comments, and without the tests at its end.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths that a text names, and whether it gives them on (`pub use`).
fn named(text: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let (public, after) = match trimmed.strip_prefix("pub") {
            Some(after) => (true, after.trim_start_matches(|c: char| c == '(' || c == ')' || c.is_alphanumeric())),
            None => (false, trimmed),
        };
        let Some(tree) = after.trim_start().strip_prefix("use ") else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            let Some(more) = lines.next() else { break };
            tree.push_str(more);
        }
        let tree = tree.split(';').next().unwrap_or_default();
        found.extend(leaves("", tree).into_iter().map(|path| (public, segments(&path))));
    }
    found.extend(inline(&rest).into_iter().map(|path| (false, path)));
    found
}

/// The single paths of a `use` tree.
fn leaves(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, inside)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        return if name.is_empty() { Vec::new() } else { vec![format!("{prefix}{name}")] };
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut part, mut parts) = (0_u32, String::new(), Vec::new());
    for c in inside.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts.iter().flat_map(|part| leaves(&prefix, part)).collect()
}

fn segments(path: &str) -> Vec<String> {
    // `a::{self}` names `a`.
    let path = path.strip_suffix("::self").unwrap_or(path);
    path.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty()).collect()
}

/// Paths within code.
fn inline(text: &str) -> Vec<Vec<String>> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let paths = text.split(|c: char| !word(c)).filter(|path| path.contains("::") && !path.starts_with(':'));
    paths.map(segments).collect()
}

/// A path from the crate on; `None` for what is of another crate.
fn absolute(module: &Module, path: &[String], known: &BTreeSet<&Module>) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => absolute(&module[..module.len().checked_sub(1)?].to_vec(), &prefixed("self", rest), known),
        _ => {
            let child = [module.as_slice(), std::slice::from_ref(first)].concat();
            known.contains(&child).then(|| [module, path].concat())
        }
    }
}

/// What follows `super`, seen from where it leads.
fn prefixed(first: &str, rest: &[String]) -> Vec<String> {
    match rest.first().map(String::as_str) {
        Some("super") => rest.to_vec(),
        _ => [&[first.to_owned()], rest].concat(),
    }
}

/// The module that a path is in, where it was given on from others.
fn home(mut path: Module, given_on: &BTreeMap<Module, Module>, known: &BTreeSet<&Module>) -> Module {
    // Bounded: a name may be given on under itself.
    for _ in 0..8 {
        let module = (0..=path.len()).rev().map(|end| path[..end].to_vec()).find(|module| known.contains(module));
        let module = module.unwrap_or_default();
        let Some(next) = path.get(..=module.len()).and_then(|name| given_on.get(name)) else { return module };
        let next = [next.as_slice(), &path[module.len() + 1..]].concat();
        if next == path {
            return module;
        }
        path = next;
    }
    Module::new()
}

/// The two modules beside each other that a need goes between; `None` within one line of modules.
fn beside(from: &Module, to: &Module) -> Option<(Module, Module)> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    (shared < from.len() && shared < to.len()).then(|| (from[..=shared].to_vec(), to[..=shared].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> =
            files.iter().map(|(path, text)| (PathBuf::from(format!("crates/x/src/{path}")), (*text).into())).collect();
        circles(&sources)
    }

    #[test]
    fn two_modules_that_need_each_other_are_named_with_their_files() {
        let found = of(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::{\n    b::{self, Thing},\n    c,\n};\n"),
            ("b.rs", "fn f() { crate::a::g() }\n"),
            ("c.rs", ""),
        ]);
        assert_eq!(
            found,
            [
                "modules a, b need each other: move what they share below them (see crates/x/src/a.rs, crates/x/src/b.rs)"
            ]
        );
    }

    #[test]
    fn a_name_that_is_given_on_counts_for_where_it_is() {
        let found = of(&[
            ("lib.rs", "mod server;\nmod verbs;\npub use self::server::Server;\n"),
            ("server.rs", "use crate::verbs;\n"),
            ("verbs/mod.rs", "mod get;\n"),
            ("verbs/get.rs", "use crate::Server;\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("modules server, verbs need"), "{found:?}");
    }

    #[test]
    fn what_is_inside_a_module_may_need_it_and_tests_may_need_anything() {
        let found = of(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a/mod.rs", "mod one;\nuse self::one::f;\npub struct A;\n"),
            ("a/one.rs", "use super::A;\n"),
            ("b.rs", "use crate::a;\n// use crate::c;\n"),
            ("a/tests.rs", "use crate::b;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn circles_below_the_first_level_are_found() {
        let found = of(&[
            ("lib.rs", "mod a;\n"),
            ("a/mod.rs", "mod one;\nmod two;\n"),
            ("a/one.rs", "use super::two::f;\n"),
            ("a/two.rs", "use crate::a::one;\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
