//! What failures say: an error with its causes on one line, a panic as a value. Needs nothing but the standard library,
//! so that every crate may use it.

mod pauses;

use std::{
    any::Any,
    error::Error,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

pub use pauses::Pauses;

/// Most bytes of a panic's words that are told.
const LONGEST: usize = 512;

/// An error and its causes, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// Runs `work`; a panic becomes what it said. Whatever `work` changes must be thrown away or still make sense then.
///
/// # Errors
/// When it panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic))
}

/// Awaits `work`; a panic becomes what it said. Whatever `work` changes must be thrown away or still make sense then.
///
/// # Errors
/// When it panics.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|context| match catch(|| work.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("without a word");
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

#[cfg(test)]
mod tests {
    use std::{fmt, task::Waker};

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn every_cause_is_told_once() {
        let root = Layer("no space", None);
        let middle = Layer("write x: no space", Some(Box::new(root)));
        assert_eq!(chain(&Layer("save", Some(Box::new(middle)))), "save: write x: no space");
    }

    #[test]
    fn a_panic_becomes_its_words_and_these_have_a_bound() {
        assert_eq!(catch(|| panic!("no {}", 1)), Err::<(), _>("no 1".into()));
        assert_eq!(catch(|| std::panic::panic_any(5)), Err::<(), _>("without a word".into()));
        let long = catch(|| panic!("{}", "é".repeat(LONGEST))).map(|(): ()| ()).expect_err("it panicked");
        assert_eq!(long.len(), LONGEST);
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert_eq!(pin!(caught(async { 5 })).poll(&mut context), Poll::Ready(Ok(5)));
        let panicking = caught(async { panic!("at sea") });
        assert_eq!(pin!(panicking).poll(&mut context), Poll::Ready(Err::<(), _>("at sea".into())));
    }
}
