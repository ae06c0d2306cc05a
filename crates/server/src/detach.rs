//! `knoll up --detach`: the same command in the background, and a wait until it is ready.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use knoll_cli::{Exit, UpArguments, instance::RunningInstance};

use crate::{failure::Failure, paths::Paths, private, up};

/// Longest wait for an instance to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts `knoll up` in the background, waits until it is ready and says where it is.
pub(crate) fn run(arguments: &UpArguments) -> Result<(), Failure> {
    let paths = Paths::new(&arguments.data.data_dir);
    if let Ok(running) = RunningInstance::find(&paths.data) {
        println!("knoll is running already (process {})", running.pid);
        println!("{}", summary(&running));
        return Ok(());
    }
    private::by_default();
    up::own(&paths)?;
    let mut log =
        private::append(&paths.log()).map_err(|e| Failure::io(format!("open {}", paths.log().display()), &e))?;
    let start = log.seek(SeekFrom::End(0)).map_err(|e| Failure::io("find the end of the log", &e))?;
    let output = log.try_clone().map_err(|e| Failure::io("share the log", &e))?;
    let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
    let mut child = Command::new(program)
        .args(std::env::args().skip(1).filter(|word| word != "--detach" && word != "-d"))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        // A terminal's Ctrl-C is for what runs in its foreground.
        .process_group(0)
        .spawn()
        .map_err(|e| Failure::io("start knoll up", &e))?;
    let begun = Instant::now();
    loop {
        if let Ok(instance) = RunningInstance::find(&paths.data)
            && u32::try_from(instance.pid).is_ok_and(|pid| pid == child.id())
        {
            println!("{}", summary(&instance));
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let exit = match status.code() {
                Some(64) => Exit::Usage,
                Some(69) => Exit::Unavailable,
                Some(77) => Exit::NoPermission,
                Some(78) => Exit::Config,
                Some(71) => Exit::System,
                _ => Exit::Software,
            };
            return Err(Failure::text(exit, said(&paths, start)));
        }
        if begun.elapsed() > PATIENCE {
            let text = format!("it is not ready after {} s: see {}", PATIENCE.as_secs(), paths.log().display());
            return Err(Failure::text(Exit::System, text));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What the background process wrote since `start`.
fn said(paths: &Paths, start: u64) -> String {
    let mut text = String::new();
    let read = fs::File::open(paths.log()).and_then(|mut log| {
        log.seek(SeekFrom::Start(start))?;
        log.read_to_string(&mut text)
    });
    let last =
        text.lines().rev().find(|line| line.starts_with("knoll: ")).map(|line| line["knoll: ".len()..].to_owned());
    match (read, last) {
        (Ok(_), Some(line)) => line,
        _ => format!("it ended before it was ready: see {}", paths.log().display()),
    }
}

/// Where a running instance is.
pub(crate) fn summary(instance: &RunningInstance) -> String {
    let gateways: Vec<String> = instance.gateway.iter().map(|address| format!("http://{address}")).collect();
    format!(
        "knoll is ready\n  Kubernetes API  {}\n  gateway         {}\n  registry        {}\n  kubeconfig      \
         export KUBECONFIG={}",
        instance.api,
        gateways.join(", "),
        instance.registry,
        instance.kubeconfig.display(),
    )
}
