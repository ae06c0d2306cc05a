//! Lists of indexes, such as `1,3-5,7`.

/// How many indexes a list names; each is to be below `completions`, and larger than the one before.
///
/// # Errors
/// What is wrong with it.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.splitn(4, '-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let index = |text: &str| match text.parse::<i32>().map(i64::from) {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let first = index(limits[0])?;
    let Some(last) = limits.get(1) else { return Ok((first, first)) };
    let last = index(last)?;
    if first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn a_list_names_each_index_once_in_order() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,2-4,7", 8), Ok(5));
        let why = |text: &str| count(text, 8).expect_err("refused");
        assert_eq!(why("x"), "cannot convert string to integer for index: \"x\"");
        assert_eq!(why("8"), "too large index: \"8\"");
        assert_eq!(why("1,1"), "non-increasing order, previous: 1, current: 1");
        assert_eq!(why("3-3"), "non-increasing order, previous: 3, current: 3");
        assert!(why("1-2-3").starts_with("the fragment \"1-2-3\" violates"));
        assert_eq!(why("-1"), "cannot convert string to integer for index: \"\"");
    }
}
