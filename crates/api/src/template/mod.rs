//! Text templates as configuration writes them: `{{.Name}}-{{index .Annotations "team"}}`.
//!
//! The language of Go's `text/template` without named templates and method calls with arguments: fields, variables,
//! pipelines, parentheses, literals, `if`/`else if`/`else`, `with`, `range`, comments, whitespace trimming, and the
//! functions `index len print printf println eq ne lt le gt ge and or not js html urlquery`.

mod eval;
mod functions;
mod parse;

use std::collections::BTreeMap;

/// Longest text a template may be parsed from, bytes.
pub const LONGEST_SOURCE: usize = 64 * 1024;
/// Longest text that rendering may give, bytes.
pub const LONGEST_OUTPUT: usize = 1024 * 1024;

/// Why a template could not be parsed or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is no template.
    #[error("template: line {line}: {problem}")]
    Parse {
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The template does not fit its data.
    #[error("template: {0}")]
    Execute(String),
}

/// What a template is rendered over.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Data>),
    /// Text by key; a missing key is the empty text.
    Map(BTreeMap<String, String>),
    /// Named fields; a missing field is an error.
    Fields(BTreeMap<&'static str, Data>),
}

impl From<&str> for Data {
    fn from(text: &str) -> Data {
        Data::Text(text.to_owned())
    }
}

/// A parsed template. Two are equal when their sources are.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses `source`.
    ///
    /// # Errors
    /// When it is no template, uses a function that does not exist, or is longer than [`LONGEST_SOURCE`].
    pub fn parse(source: &str) -> Result<Template, TemplateError> {
        if source.len() > LONGEST_SOURCE {
            return Err(TemplateError::Parse { line: 1, problem: format!("longer than {LONGEST_SOURCE} bytes") });
        }
        Ok(Template { source: source.to_owned(), nodes: parse::parse(source)? })
    }

    /// Renders it over `data`.
    ///
    /// # Errors
    /// When it asks for a field that is not there, or calls a function with the wrong arguments, or the text grows
    /// beyond [`LONGEST_OUTPUT`], or nested ranges take too many steps.
    pub fn render(&self, data: &Data) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data).map_err(TemplateError::Execute)
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Data {
        Data::Fields(BTreeMap::from([
            ("Name", "hello".into()),
            ("Annotations", Data::Map(BTreeMap::from([("team".to_owned(), "blue".to_owned())]))),
            ("Count", Data::Int(3)),
            ("Items", Data::List(vec!["a".into(), "b".into()])),
            ("Request", Data::Fields(BTreeMap::from([("Method", "GET".into())]))),
        ]))
    }

    fn render(source: &str) -> Result<String, TemplateError> {
        Template::parse(source)?.render(&data())
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }

    #[test]
    fn fields_maps_and_nested_fields_are_read() {
        check("{{.Name}}.{{ .Request.Method }}", "hello.GET");
        check(r#"{{index .Annotations "team"}}|{{.Annotations.team}}|{{.Annotations.other}}"#, "blue|blue|");
    }

    #[test]
    fn conditions_choose_a_branch() {
        check(r#"{{if eq (index .Annotations "team") "blue"}}b{{else}}n{{end}}"#, "b");
        check(r#"{{if .Annotations.x}}1{{else if gt .Count 2}}2{{else}}3{{end}}"#, "2");
        check(r#"{{with .Annotations.team}}<{{.}}>{{end}}{{with .Annotations.x}}no{{else}}none{{end}}"#, "<blue>none");
        check(r#"{{if and .Name (not .Annotations.x) (or .Annotations.x "y")}}ok{{end}}"#, "ok");
    }

    #[test]
    fn ranges_and_variables_keep_their_scope() {
        check("{{range $i, $v := .Items}}{{$i}}={{$v}} {{end}}", "0=a 1=b ");
        check("{{$x := .Name}}{{range .Items}}{{$x}}-{{.}} {{end}}", "hello-a hello-b ");
        check("{{range $k, $v := .Annotations}}{{$k}}:{{$v}}{{$.Name}}{{end}}", "team:bluehello");
        check(r#"{{$x := "1"}}{{if true}}{{$x = "2"}}{{end}}{{$x}}"#, "2");
    }

    #[test]
    fn pipelines_pass_the_value_last() {
        check(r#"{{.Name | printf "%s-%d" "x" | len}}"#, "19");
        check(r#"{{.Name | printf "%q"}}{{printf "%05d|%v|%%" .Count .Items}}"#, r#""hello"00003|[a b]|%"#);
        check(r#"{{print "a" 1 2 "b"}}"#, "a1 2b");
    }

    #[test]
    fn trimming_and_comments_leave_no_trace() {
        check("a  {{- /* note */ -}}  b", "ab");
        check("{{/* note */}}x {{- .Name -}} y", "xhelloy");
    }

    #[test]
    fn escaping_is_for_scripts() {
        check(r#"{{js "a'b\"<\n"}}"#, r#"a\'b\"\u003C\u000A"#);
        check(r#"{{html "<a&b>"}}{{urlquery "a b&c"}}"#, "&lt;a&amp;b&gt;a+b%26c");
    }

    #[test]
    fn ranges_within_ranges_end() {
        let problem = render("{{range 9999}}{{range 9999}}{{if false}}{{end}}{{end}}{{end}}").unwrap_err();
        assert_eq!(problem.to_string(), "template: more than 100000 steps");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let problem = |source| render(source).unwrap_err().to_string();
        assert_eq!(problem("{{.Nope}}"), "template: can't evaluate field Nope");
        assert_eq!(problem("a\n{{nope}}"), r#"template: line 2: function "nope" not defined"#);
        assert_eq!(problem("{{if .Name}}"), "template: line 1: unexpected EOF");
        assert_eq!(problem("{{.Name"), "template: line 1: unclosed action");
        assert_eq!(problem("{{end}}"), "template: line 1: unexpected {{end}}");
        assert_eq!(problem("{{$x}}"), r#"template: line 1: undefined variable "$x""#);
        assert!(render("{{index .Items 7}}").is_err());
        assert!(render("{{}}").is_err());
    }
}
