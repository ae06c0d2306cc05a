//! A hundred services without instances, all asked at the same moment, beside as many `runc run` of the same program
//! and files started at the same moment.
//!
//! Both are measured from before the first is asked for, or started, to the first byte of the last answer. They take
//! turns; a round ends when everything it started has gone. How many services there are besides must not matter. The
//! processor time of everything that takes part is told, too: it says more on a machine that others use.

use std::error::Error;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Connection;
use crate::cpu::Whose;
use crate::figures::{Spread, figure};
use crate::instance::{self, Instance};
use crate::request::ask;
use crate::runc::Bundle;
use crate::{block_on, require, services};

/// Services that are woken at the same moment.
const BURST: usize = 100;
/// Rounds in which both take turns.
const ROUNDS: usize = 3;
/// Before a round: what the last one left to do gets done.
const REST: Duration = Duration::from_secs(1);
/// How long instances may take to go again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether they have gone.
const GLANCE: Duration = Duration::from_millis(250);
/// What has instances go soon after a burst.
const SHORT: [(&str, &str); 3] =
    [("stable-window", "6s"), ("scale-to-zero-grace-period", "6s"), ("allow-zero-initial-scale", "true")];

/// A burst as it was seen.
struct Burst {
    /// Until the last answer, seconds.
    seconds: f64,
    /// Until each answer, seconds.
    each: Spread,
    /// Processor time, seconds.
    cpu: f64,
}

/// Measures among `count` services, of which at least a hundred are there.
pub(crate) fn run(count: usize) -> Result<String, Box<dyn Error>> {
    require(&["runc", "tar"])?;
    let count = count.max(BURST);
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let image = instance::sample()?;
    let mut bundles = bundles(&image, folder.path())?;
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    instance.load(&image)?;
    let names = block_on(async {
        let mut client = instance.credentials.connect().await?;
        let short: serde_json::Map<String, Value> =
            SHORT.iter().map(|(key, value)| ((*key).into(), json!(value))).collect();
        let path = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler";
        client.merge(path, &json!({"data": short})).await?;
        services::create(&mut client, "burst", count).await
    })?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        std::thread::sleep(REST);
        ours.push(wake(&instance, &chosen(&names, round))?);
        block_on(async { at_rest(&mut instance.credentials.connect().await?).await })?;
        std::thread::sleep(REST);
        theirs.push(start(&mut bundles)?);
    }
    instance.stop()?;
    Ok(told(count, &ours, &theirs))
}

fn told(count: usize, ours: &[Burst], theirs: &[Burst]) -> String {
    let mut text = format!("{BURST} of {count} services woken at once, {ROUNDS} rounds (medians)\n");
    text.push_str("                 last answer s   median answer s   CPU s   x runc (last)   x runc (CPU)\n");
    let middle =
        |bursts: &[Burst], of: fn(&Burst) -> f64| Spread::of(&bursts.iter().map(of).collect::<Vec<_>>()).at(50.0);
    let last = |burst: &Burst| burst.seconds;
    let cpu = |burst: &Burst| burst.cpu;
    let mut raw = serde_json::Map::new();
    for (name, bursts) in [("knoll", ours), ("runc run", theirs)] {
        text.push_str(&format!(
            "{name:<16} {:>13.2} {:>17.2} {:>7.2} {:>15} {:>14}\n",
            middle(bursts, last),
            middle(bursts, |burst| burst.each.at(50.0)),
            middle(bursts, cpu),
            figure(middle(bursts, last) / middle(theirs, last)),
            figure(middle(bursts, cpu) / middle(theirs, cpu)),
        ));
        let values = |of: fn(&Burst) -> f64| bursts.iter().map(of).collect::<Vec<_>>();
        raw.insert(name.to_owned(), json!({"last": values(last), "cpu": values(cpu)}));
    }
    text.push_str(&Value::Object(raw).to_string());
    text
}

/// As many bundles as are started at once.
fn bundles(image: &Path, folder: &Path) -> Result<Vec<Bundle>, Box<dyn Error>> {
    let first = Bundle::unpack(image, folder)?;
    let others = (1..BURST).map(|number| first.beside(&folder.join(format!("bundle-{number}"))));
    let mut all = others.collect::<Result<Vec<_>, _>>()?;
    all.push(first);
    Ok(all)
}

/// Those that a round wakes: spread over all of them, others in each round as far as there are.
fn chosen(names: &[String], round: usize) -> Vec<&str> {
    let step = names.len() / BURST;
    (0..BURST).map(|number| names[number * step + round % step].as_str()).collect()
}

/// Asks all of them at once.
fn wake(instance: &Instance, names: &[&str]) -> Result<Burst, Box<dyn Error>> {
    let monitor = instance::monitor()?;
    let whose = [Whose::Process(instance.process()), Whose::Process(monitor), Whose::Descendants(monitor)];
    let (burst, failures) = together(&whose, names.iter().collect(), |name| {
        let took = ask(instance.gateway, &format!("{name}.default.localhost"));
        took.map(|took| (took, ())).map_err(|error| error.to_string())
    });
    burst.map(|(burst, _)| burst).ok_or_else(|| failures.join("\n").into())
}

/// Starts all of them at once, and ends them again.
fn start(bundles: &mut [Bundle]) -> Result<Burst, Box<dyn Error>> {
    let whose = [Whose::Descendants(std::process::id())];
    let (burst, mut failures) = together(&whose, bundles.iter_mut().collect(), |bundle| {
        let started = bundle.start(|since| (since / 50).clamp(Duration::from_micros(250), Duration::from_millis(20)));
        started.map(|(running, took)| (took, running)).map_err(|error| error.to_string())
    });
    let Some((burst, running)) = burst else { return Err(failures.join("\n").into()) };
    failures.extend(running.into_iter().filter_map(|running| running.stop().err()).map(|error| error.to_string()));
    if failures.is_empty() { Ok(burst) } else { Err(failures.join("\n").into()) }
}

/// Does `work` with each at the same time. Without a burst, why some failed.
fn together<I: Send, T: Send>(
    whose: &[Whose],
    all: Vec<I>,
    work: impl Fn(I) -> Result<(Duration, T), String> + Sync,
) -> (Option<(Burst, Vec<T>)>, Vec<String>) {
    let micros = || whose.iter().map(Whose::micros).sum::<f64>();
    let gate = Barrier::new(all.len() + 1);
    let (before, begun, outcomes) = std::thread::scope(|scope| {
        let (gate, work) = (&gate, &work);
        let threads: Vec<_> = all
            .into_iter()
            .map(|one| {
                scope.spawn(move || {
                    gate.wait();
                    work(one)
                })
            })
            .collect();
        let before = micros();
        let begun = Instant::now();
        gate.wait();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        (before, begun, threads.into_iter().map(join).collect::<Vec<_>>())
    });
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (micros() - before) / 1e6;
    let (mut took, mut kept, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok((duration, one)) => {
                took.push(duration.as_secs_f64());
                kept.push(one);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let burst = failures.is_empty().then(|| (Burst { seconds, each: Spread::of(&took), cpu }, kept));
    (burst, failures)
}

/// Waits until there are no pods.
async fn at_rest(client: &mut Connection) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        let list: Value = serde_json::from_slice(&client.get("/api/v1/namespaces/default/pods").await?)?;
        if list["items"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err("instances do not go".into());
        }
        tokio::time::sleep(GLANCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_wakes_as_many_others_as_there_are() {
        let names: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let rounds: Vec<_> = (0..2).map(|round| chosen(&names, round)).collect();
        assert!(rounds.iter().all(|names| names.len() == BURST));
        assert!(rounds[0].iter().all(|name| !rounds[1].contains(name)));
        assert_eq!(chosen(&names[..BURST], 2).len(), BURST);
    }

    #[test]
    fn a_burst_is_over_with_its_last_answer_and_fails_with_any() {
        let all = |fail: u64| {
            together(&[Whose::Nobodys], vec![1, 2, 3], move |number: u64| match number == fail {
                true => Err(number.to_string()),
                false => Ok((Duration::from_secs(number), number)),
            })
        };
        let (burst, failures) = all(0);
        let (burst, kept) = burst.expect("nothing failed");
        assert_eq!((burst.each.at(100.0), kept, failures.len()), (3.0, vec![1, 2, 3], 0));
        let (burst, failures) = all(2);
        assert!(burst.is_none());
        assert_eq!(failures, ["2"]);
    }
}
