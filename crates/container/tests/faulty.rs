//! A monitor in which something is wrong: a record of its own, or a step of its own that panics. The panics are real: the
//! monitor, which is this program when its options are given, has a subscriber that panics when a certain thing is said,
//! which happens in the middle of its work. Needs root and busybox-static.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use knoll_container::client::Client;
use knoll_container::launch::Options;
use knoll_container::monitor;
use knoll_container::protocol::{Configuration, ContainerStatus, RefusalKind, SandboxSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Site, container_id, sandbox_id, until};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const FILE: u8 = 12;
/// Where the mines lie, below the monitor's state.
const MINES: &str = "mines";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, options] = &args[..]
        && flag == "--options"
    {
        let options: Options = serde_json::from_str(options).expect("options");
        tracing::subscriber::set_global_default(Mines(options.state_dir.join(MINES))).expect("the first subscriber");
        return monitor::run(&options).expect("a monitor");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let wanted = Filter::of(&args[1..]);
    let list = args.iter().any(|arg| arg == "--list");
    macro_rules! run {
        ($($test:ident)*) => {$(
            if wanted.takes(stringify!($test)) {
                if list {
                    println!("{}: test", stringify!($test));
                } else {
                    runtime.block_on($test());
                    println!("test {} ... ok", stringify!($test));
                }
            }
        )*};
    }
    run! {
        a_changed_byte_in_any_record_costs_what_it_told_of_alone
        a_record_that_cannot_be_read_now_costs_a_start_and_nothing_else
        a_panic_costs_a_request_or_what_the_event_is_about
    }
}

/// Which tests the arguments ask for, as the usual harness reads them.
#[derive(Default)]
struct Filter {
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    ignored: bool,
}

impl Filter {
    fn of(args: &[String]) -> Filter {
        let mut filter = Filter::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--skip" => filter.skipped.extend(args.next().cloned()),
                "--exact" => filter.exact = true,
                "--ignored" => filter.ignored = true,
                // These have a value, which is no name.
                "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => {
                    args.next();
                }
                flag if flag.starts_with('-') => {}
                name => filter.names.push(name.to_owned()),
            }
        }
        filter
    }

    fn takes(&self, test: &str) -> bool {
        let fits = |name: &String| if self.exact { test == name } else { test.contains(name.as_str()) };
        // None of them is ignored.
        !self.ignored && (self.names.is_empty() || self.names.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

/// Each file is a mine, armed for as many panics as it says: it goes off where something is said that holds all the parts
/// of its name between asterisks.
struct Mines(PathBuf);

impl Mines {
    fn lay(site: &Site, times: u32, at: &str) {
        let state = &site.launcher.options.state_dir;
        fs::create_dir_all(state.join(MINES)).unwrap();
        // Whole or not at all: a monitor may look at any time.
        fs::write(state.join("mine"), times.to_string()).unwrap();
        fs::rename(state.join("mine"), state.join(MINES).join(at)).unwrap();
    }

    fn left(site: &Site, at: &str) -> String {
        fs::read_to_string(site.launcher.options.state_dir.join(MINES).join(at)).unwrap()
    }
}

struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Mines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("knoll_container")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said(String::new());
        event.record(&mut said);
        if *event.metadata().level() <= Level::WARN {
            eprintln!("{}", said.0);
        }
        for mine in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let (name, path) = (mine.file_name().into_string().unwrap(), mine.path());
            let left: u32 = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            if left > 0 && name.split('*').all(|part| said.0.contains(part)) {
                fs::write(&path, (left - 1).to_string()).unwrap();
                panic!("a mine went off at: {}", said.0);
            }
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn faulty_site() -> Site {
    let mut site = Site::isolated(FILE);
    site.launcher.program = std::env::current_exe().unwrap();
    site
}

async fn log_says(site: &Site, what: &str) {
    let log = site.launcher.options.state_dir.join("monitor.log");
    until(what, || fs::read_to_string(&log).unwrap().contains(what)).await;
}

fn has_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

async fn kill_monitor(client: &Client) {
    let pid = client.monitor().pid;
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    until("the monitor is dead", || has_ended(pid)).await;
}

async fn is_there(client: &Client, container: &ContainerStatus) -> bool {
    client.list().await.unwrap().containers.contains(container)
}

/// Changes a byte in the middle of a file and gives what it holds now.
fn damage(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, &bytes).unwrap();
    bytes
}

async fn a_changed_byte_in_any_record_costs_what_it_told_of_alone() {
    let site = faulty_site();
    let state = site.launcher.options.state_dir.clone();
    let mut client = site.networked(1).await;
    let kept_at = site.pod(&client, "kept").await;
    let kept = site.start(&client, "kept", "kept", "sleep 1000").await;
    for (file, survives) in
        [("configuration.json", true), ("sandboxes/hurt.json", false), ("containers/hurt/status.json", false)]
    {
        let hurt_at = site.pod(&client, "hurt").await;
        assert_ne!(hurt_at, kept_at);
        let hurt = site.start(&client, "hurt", "hurt", "sleep 1000").await;
        kill_monitor(&client).await;
        let damaged = damage(&state.join(file));
        // As an earlier version wrote it: without a checksum.
        let old = state.join("containers/kept/status.json");
        let line = fs::read_to_string(&old).unwrap().lines().next().unwrap().to_owned();
        fs::write(&old, line).unwrap();

        client = site.connect().await;
        let aside = state.join("damaged").join(file.replace('/', "-"));
        assert_eq!(fs::read(&aside).unwrap(), damaged, "{file} is kept for whoever wants to know");
        log_says(&site, state.join(file).to_str().unwrap()).await;
        assert!(is_there(&client, &kept).await, "{file} costs what it tells of alone");
        assert_eq!(is_there(&client, &hurt).await, survives, "{file}");
        if !survives {
            until("what nobody has a record of is ended", || has_ended(hurt.pid)).await;
        }
        let network = Some(site.network.clone());
        client.configure(Configuration { network, pool: 1 }).await.unwrap();
        client.remove_sandbox(sandbox_id("hurt")).await.unwrap();
        until("its processes are gone", || has_ended(hurt.pid)).await;
        assert!(!has_ended(kept.pid));
    }
    site.finish(&client).await;
}

async fn a_record_that_cannot_be_read_now_costs_a_start_and_nothing_else() {
    let site = faulty_site();
    let client = site.connect().await;
    site.sandbox(&client, "kept").await;
    let kept = site.start(&client, "kept", "kept", "sleep 1000").await;
    kill_monitor(&client).await;
    let record = site.launcher.options.state_dir.join("containers/kept/status.json");
    let beside = record.with_extension("beside");
    fs::rename(&record, &beside).unwrap();
    // A link to itself: reading fails, and tells nothing of what was written.
    std::os::unix::fs::symlink(&record, &record).unwrap();
    let refused = site.launcher.ensure().unwrap_err().to_string();
    assert!(refused.contains("read its records") && refused.contains("status.json"), "{refused}");
    assert!(!has_ended(kept.pid));
    fs::rename(&beside, &record).unwrap();
    let client = site.connect().await;
    assert!(is_there(&client, &kept).await);
    site.finish(&client).await;
}

async fn a_panic_costs_a_request_or_what_the_event_is_about() {
    let site = faulty_site();
    let client = site.connect().await;
    site.sandbox(&client, "panics").await;
    let steady = site.start(&client, "panics", "steady", "sleep 1000").await;

    // A request.
    Mines::lay(&site, 1, "a request came");
    let error = client.list().await.unwrap_err();
    assert_eq!(error.kind(), Some(RefusalKind::Internal));
    assert!(error.to_string().contains("which is a bug: a mine went off"), "{error}");
    assert!(is_there(&client, &steady).await, "the next request is answered");

    // A turn of a client whose request has been read: nothing wakes the monitor for it again.
    let mine = "requests are looked for";
    Mines::lay(&site, 1, mine);
    assert!(is_there(&client, &steady).await, "the request is answered");
    assert_eq!(Mines::left(&site, mine), "0");

    // An answer, for which its client does not wait for ever.
    let other = Client::connect(&site.launcher.options.socket).await.unwrap();
    Mines::lay(&site, 1, "an answer is written");
    other.list().await.unwrap_err();
    assert!(is_there(&client, &steady).await, "other clients are served");

    // An event that is handled the third time.
    let mine = "an event came*Process*brief";
    Mines::lay(&site, 2, mine);
    site.start(&client, "panics", "brief", "exit 4").await;
    assert_eq!(client.wait(container_id("brief")).await.unwrap().code, 4);
    assert_eq!(Mines::left(&site, mine), "0");

    // One that panics each time costs the container it is about.
    Mines::lay(&site, 3, "output came*loud");
    site.start(&client, "panics", "loud", "while true; do echo loud; sleep 0.01; done").await;
    assert_eq!(client.wait(container_id("loud")).await.unwrap().code, 137);
    log_says(&site, "a container is given up").await;

    // One of a client, which hears that it is lost.
    let other = Client::connect(&site.launcher.options.socket).await.unwrap();
    Mines::lay(&site, 3, "an event came*Connection");
    other.list().await.unwrap_err();
    assert!(is_there(&client, &steady).await, "other clients are served");

    // A helper that makes a sandbox, for which a claim waits.
    client.configure(Configuration { network: Some(site.network.clone()), pool: 0 }).await.unwrap();
    Mines::lay(&site, 3, "an event came*Filler");
    let claim = SandboxSpec::new(sandbox_id("claimed"), "claimed");
    let error = client.prepare_sandbox(claim).await.unwrap_err();
    assert!(error.to_string().contains("which is a bug"), "{error}");
    site.pod(&client, "claimed").await;

    // One that empties the trash, and one that a request waits for.
    let mine = "an event came*Helper";
    let trash = site.launcher.options.state_dir.join("trash");
    Mines::lay(&site, 3, mine);
    client.remove_container(container_id("brief")).await.unwrap();
    until("it is given up", || Mines::left(&site, mine) == "0").await;
    Mines::lay(&site, 3, mine);
    client.reclaim(sandbox_id("panics")).await.unwrap();
    assert_eq!(Mines::left(&site, mine), "0");

    // The end of a child whose work is done, without which nothing would ever be all removed.
    Mines::lay(&site, 3, "an event came*Leaving");
    site.pod(&client, "another").await;
    until("it is given up", || Mines::left(&site, "an event came*Leaving") == "0").await;

    // What the monitor does now and then.
    let mine = "now and then";
    Mines::lay(&site, 1, mine);
    client.remove_container(container_id("loud")).await.unwrap();
    until("the trash is emptied again", || fs::read_dir(&trash).unwrap().count() == 0).await;
    site.start(&client, "panics", "after", "sleep 0.01 & exit 0").await;
    until("it did something", || Mines::left(&site, mine) == "0").await;
    assert!(is_there(&client, &steady).await);

    // Whoever cannot be heard any more makes room for another.
    Mines::lay(&site, 3, "an event came*Listener");
    drop(Client::connect(&site.launcher.options.socket).await);
    until("it has ended", || has_ended(client.monitor().pid)).await;
    let client = site.connect().await;
    assert!(is_there(&client, &steady).await, "what runs goes on under the next monitor");

    // Whoever never hears that a container has ended, too.
    site.start(&client, "panics", "unheard", "echo begun; while [ ! -e /tmp/go ]; do sleep 0.01; done").await;
    site.wait_for_output("unheard", "begun").await;
    Mines::lay(&site, 3, "an event came*Process*unheard");
    client.signal(container_id("unheard"), 9).await.unwrap();
    until("it has ended", || has_ended(client.monitor().pid)).await;
    let client = site.connect().await;
    client.wait(container_id("unheard")).await.unwrap();
    assert!(is_there(&client, &steady).await);
    site.finish(&client).await;
}
