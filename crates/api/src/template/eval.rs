//! From nodes and data to text.

use super::{
    Data, LONGEST_OUTPUT, functions,
    parse::{BlockKind, Command, Node, Operand, Pipeline},
};

/// Most nodes one rendering may pass, so that nested ranges end.
const MOST_NODES: usize = 100_000;

pub(super) fn render(nodes: &[Node], data: &Data) -> Result<String, String> {
    let mut renderer =
        Renderer { out: String::new(), variables: vec![("$".to_owned(), data.clone())], nodes_left: MOST_NODES };
    renderer.nodes(nodes, data)?;
    Ok(renderer.out)
}

struct Renderer {
    out: String,
    /// Innermost last.
    variables: Vec<(String, Data)>,
    nodes_left: usize,
}

impl Renderer {
    fn nodes(&mut self, nodes: &[Node], dot: &Data) -> Result<(), String> {
        for node in nodes {
            self.nodes_left = self.nodes_left.checked_sub(1).ok_or_else(|| format!("more than {MOST_NODES} steps"))?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Output(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.write(&functions::show(&value))?;
                }
                Node::Assign(pipeline) => {
                    self.pipeline(pipeline, dot)?;
                }
                Node::Block { kind, pipeline, body, otherwise } => {
                    let scope = self.variables.len();
                    self.block(*kind, pipeline, body, otherwise, dot)?;
                    self.variables.truncate(scope);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > LONGEST_OUTPUT {
            return Err(format!("the result exceeds {LONGEST_OUTPUT} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn block(
        &mut self,
        kind: BlockKind,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Data,
    ) -> Result<(), String> {
        if kind == BlockKind::Range {
            return self.range(pipeline, body, otherwise, dot);
        }
        let value = self.pipeline(pipeline, dot)?;
        match (functions::is_true(&value), kind) {
            (true, BlockKind::With) => self.nodes(body, &value),
            (true, _) => self.nodes(body, dot),
            (false, _) => self.nodes(otherwise, dot),
        }
    }

    fn range(&mut self, pipeline: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Data) -> Result<(), String> {
        let value = self.commands(pipeline, dot)?;
        let items: Vec<(Data, Data)> = match value {
            Data::List(items) => (0..).map(Data::Int).zip(items).collect(),
            Data::Map(map) => map.into_iter().map(|(k, v)| (Data::Text(k), Data::Text(v))).collect(),
            Data::Int(count) => (0..count.clamp(0, 10_000)).map(|i| (Data::Int(i), Data::Int(i))).collect(),
            Data::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", functions::show(&other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let scope = self.variables.len();
        for (key, item) in items {
            match pipeline.variables.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
            }
            self.nodes(body, &item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    /// Evaluates a pipeline and sets its variables.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Data) -> Result<Data, String> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some(variable) if !pipeline.declares => variable.1 = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Data) -> Result<Data, String> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value.take(), dot)?);
        }
        value.ok_or_else(|| "missing value for command".to_owned())
    }

    fn command(&mut self, command: &Command, piped: Option<Data>, dot: &Data) -> Result<Data, String> {
        let Operand::Function(name) = &command.head else { return self.operand(&command.head, dot) };
        // `and` and `or` stop at the first argument that decides.
        if let "and" | "or" = name.as_str() {
            return self.short_circuit(name == "or", command, piped, dot);
        }
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            arguments.push(self.operand(argument, dot)?);
        }
        arguments.extend(piped);
        functions::call(name, &arguments)
    }

    fn short_circuit(
        &mut self,
        stops_at: bool,
        command: &Command,
        piped: Option<Data>,
        dot: &Data,
    ) -> Result<Data, String> {
        let mut last = None;
        for argument in &command.arguments {
            let value = self.operand(argument, dot)?;
            if functions::is_true(&value) == stops_at {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| "wrong number of args for and/or: want at least 1 got 0".to_owned())
    }

    fn operand(&mut self, operand: &Operand, dot: &Data) -> Result<Data, String> {
        Ok(match operand {
            Operand::Dot => dot.clone(),
            Operand::Nil => Data::Nil,
            Operand::Bool(value) => Data::Bool(*value),
            Operand::Int(value) => Data::Int(*value),
            Operand::Float(value) => Data::Float(*value),
            Operand::Text(text) => Data::Text(text.clone()),
            Operand::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| format!("undefined variable: {name}"))?,
            Operand::Function(name) => functions::call(name, &[])?,
            Operand::Group(pipeline) => self.commands(pipeline, dot)?,
            Operand::Chain(base, fields) => {
                let base = self.operand(base, dot)?;
                fields.iter().try_fold(base, |value, name| field(&value, name))?
            }
        })
    }
}

fn field(value: &Data, name: &str) -> Result<Data, String> {
    match value {
        Data::Map(map) => Ok(Data::Text(map.get(name).cloned().unwrap_or_default())),
        Data::Fields(fields) => fields.get(name).cloned().ok_or_else(|| format!("can't evaluate field {name}")),
        Data::Nil => Err(format!("nil data; no entry for key {name:?}")),
        _ => Err(format!("can't evaluate field {name}")),
    }
}
