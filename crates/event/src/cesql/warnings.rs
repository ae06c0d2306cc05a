//! What an expression can be suspected of before any event comes (section 3.3 wants errors found early).

use super::{
    MOST_WARNINGS,
    error::excerpt,
    functions::Function,
    tree::{Callee, Chain, Logic, Node, Question},
};

/// Says each once, in the order of the text.
pub(super) fn of(root: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    visit(root, &mut warnings);
    warnings
}

fn visit(node: &Node, warnings: &mut Vec<String>) {
    match node {
        Node::Text(_) | Node::Integer(_) | Node::Boolean(_) | Node::Attribute(_) | Node::Exists(_) => {}
        Node::Not(operand) | Node::Negate(operand) => visit(operand, warnings),
        Node::Call(callee, arguments) => {
            if !is_there(callee, arguments.len()) {
                let (name, count) = (callee.to_string(), arguments.len());
                let warning =
                    format!("there is no function {} of {count} arguments: to call it is an error", excerpt(&name));
                add(warning, warnings);
            }
            visit_all(arguments, warnings);
        }
        Node::Tests(operand, tests) => {
            visit(operand, warnings);
            for test in tests {
                if let Question::In(set) = &test.question {
                    visit_all(set, warnings);
                }
            }
        }
        Node::Arithmetic(chain) => visit_chain(chain, warnings),
        Node::Comparison(chain) => visit_chain(chain, warnings),
        Node::Logic(chain) => {
            if is_mixed(chain) {
                add(MIXED.to_owned(), warnings);
            }
            visit_chain(chain, warnings);
        }
    }
}

const MIXED: &str = "AND, OR and XOR group from the right, none before the others, so that a AND b OR c is a AND (b OR c): \
                     parentheses make sure";

/// Whether it matters how the operators group.
fn is_mixed(chain: &Chain<Logic>) -> bool {
    chain.rest.windows(2).any(|pair| pair[0].0 != pair[1].0)
}

fn is_there(callee: &Callee, arguments: usize) -> bool {
    let Callee::Known(function) = callee else { return false };
    match function {
        Function::Concat => true,
        Function::ConcatWs => arguments >= 1,
        Function::Left | Function::Right => arguments == 2,
        Function::Substring => arguments == 2 || arguments == 3,
        _ => arguments == 1,
    }
}

fn visit_all(nodes: &[Node], warnings: &mut Vec<String>) {
    nodes.iter().for_each(|node| visit(node, warnings));
}

fn visit_chain<O>(chain: &Chain<O>, warnings: &mut Vec<String>) {
    visit(&chain.first, warnings);
    chain.rest.iter().for_each(|(_, node)| visit(node, warnings));
}

fn add(warning: String, warnings: &mut Vec<String>) {
    if warnings.len() < MOST_WARNINGS && !warnings.contains(&warning) {
        warnings.push(warning);
    }
}
