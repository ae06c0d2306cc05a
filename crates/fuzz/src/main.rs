//! The targets for `scripts/fuzz`: under libFuzzer the one that `KNOLL_FUZZ_TARGET` names; without it, what there is.
#![cfg_attr(feature = "guided", no_main)]

#[cfg(feature = "guided")]
mod guided {
    use std::sync::LazyLock;

    use knoll_fuzz::{Target, target};

    static TARGET: LazyLock<&Target> = LazyLock::new(|| {
        let name = std::env::var("KNOLL_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("KNOLL_FUZZ_TARGET={name} names no target"))
    });

    libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.check)(input));
}

/// `list` prints the targets, `dictionary <target>` the words of one.
#[cfg(not(feature = "guided"))]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => knoll_fuzz::TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["dictionary", name] => match knoll_fuzz::target(name) {
            Some(target) => print!("{}", target.dictionary()),
            None => eprintln!("no target is called {name}"),
        },
        _ => eprintln!("usage: knoll-fuzz list | dictionary <target>"),
    }
}
