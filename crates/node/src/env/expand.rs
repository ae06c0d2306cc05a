//! `$(NAME)` references.

/// Most bytes of one expanded text: the kernel passes no longer variable or argument to a program
/// (`MAX_ARG_STRLEN` of execve(2)).
pub const LONGEST: usize = 128 * 1024;

/// A text that would become longer than [`LONGEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Fills in `$(NAME)` where `known` knows the name, leaves it as it stands otherwise; `$$` is a dollar sign.
///
/// # Errors
/// When the result would be too long. References to references double a text each time, so it is asked on the way.
pub fn expand<'a>(text: &str, known: impl Fn(&str) -> Option<&'a str>) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        add(&mut out, &rest[..at])?;
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            add(&mut out, "$")?;
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known(name) {
                Some(value) => add(&mut out, value)?,
                None => add(&mut out, &rest[at..at + name.len() + 3])?,
            }
            rest = tail;
        } else {
            add(&mut out, "$")?;
            rest = after;
        }
    }
    add(&mut out, rest)?;
    Ok(out)
}

fn add(out: &mut String, text: &str) -> Result<(), TooLong> {
    if out.len() + text.len() > LONGEST {
        return Err(TooLong);
    }
    out.push_str(text);
    Ok(())
}
