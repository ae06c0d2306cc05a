//! What `knoll` takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

use crate::event::EventArguments;

/// Knative in one program.
#[derive(Debug, Parser)]
#[command(name = "knoll", version, about = "Knative in one program: push an image, get a URL that scales to zero")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: API server, controllers, autoscaler, gateway, node, DNS, registry.
    ///
    /// Ctrl-C stops it and the pods; SIGTERM leaves the pods running for the next `up` to adopt.
    Up(Box<UpArguments>),
    /// Run the API server and the image registry alone; controllers, autoscaler, gateway, broker and node are processes of
    /// their own (see the next five). Leaves a kubeconfig for each of them in its data directory.
    Api(Box<ApiArguments>),
    /// Run Knative's controllers over an API server: a cluster's, or `knoll api`. Several may run: one leads.
    Controller(Box<ControllerArguments>),
    /// Run the autoscaler over `knoll api`, fed by the gateway of this machine.
    Autoscaler(Box<RoleArguments>),
    /// Run the gateway over `knoll api`.
    Gateway(Box<GatewayArguments>),
    /// Run Eventing over `knoll api`: its controllers, and what takes, keeps and delivers events.
    Broker(Box<BrokerArguments>),
    /// Run the node over `knoll api`: the containers of this machine, their names and Service addresses.
    ///
    /// Ctrl-C stops the pods, too; SIGTERM leaves them running for the next to adopt.
    Node(Box<NodeArguments>),
    /// Print the CustomResourceDefinitions of Knative Serving and Eventing, for a cluster that `knoll controller` is to run over:
    /// `knoll crds | kubectl apply --server-side -f -`.
    Crds,
    /// Stop the running instance. Data stays; `up` brings everything back.
    Down(DownArguments),
    /// Check what this machine needs to have, and say what to do.
    Doctor(DataDir),
    /// Make every kubeconfig and client certificate given out until now void, and write a new admin.kubeconfig.
    ///
    /// A running instance refuses them within a second; what is running by then (a watch, a shell) goes on until it
    /// ends. Tokens end with their ServiceAccount, pod or Secret.
    Revoke(DataDir),
    /// Remove every trace: containers, namespaces, mounts, cgroups, rules and data.
    Reset(ResetArguments),
    /// Images of this machine.
    Image(ImageArguments),
    /// The files that hold the objects: whether they are whole, and what to do when not.
    Store(StoreArguments),
    /// Events: send one, look at those that are kept, deliver them again, see what nobody took.
    Event(EventArguments),
    /// Look at the running instance: readiness, metrics, log level, what its parts do.
    Admin(AdminArguments),
    /// The process that holds the containers. Started by `up`.
    #[command(hide = true)]
    Monitor {
        /// Where it keeps things, JSON.
        #[arg(long)]
        options: String,
    },
}

/// Where an instance keeps its data.
#[derive(Clone, Debug, Args)]
pub struct DataDir {
    /// Where objects, images and keys are kept.
    #[arg(long, env = "KNOLL_DATA_DIR", default_value = "/var/lib/knoll", global = true)]
    pub data_dir: PathBuf,
}

/// Where the API server and the registry listen.
#[derive(Clone, Debug, Args)]
pub struct ApiSockets {
    /// Address of the Kubernetes API (https). Give an address of this machine to reach it from others.
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub api_addr: SocketAddr,
    /// Further names and addresses for the API server's certificate.
    #[arg(long = "api-name", value_name = "NAME")]
    pub api_names: Vec<String>,
    /// Address of the embedded image registry (http).
    #[arg(long, default_value = "127.0.0.1:5000")]
    pub registry_addr: SocketAddr,
    /// Address of the admin endpoint (https: health, metrics, log level). Without it there is only the local socket that
    /// `knoll admin` uses.
    #[arg(long)]
    pub admin_addr: Option<SocketAddr>,
}

/// Where the gateway listens, and whom it believes.
#[derive(Clone, Debug, Args)]
pub struct GatewaySockets {
    /// Addresses of the gateway (http). Port 80 of the first one's host is tried besides, so that URLs need show no port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_addr: Vec<SocketAddr>,
    /// Do not try port 80.
    #[arg(long)]
    pub no_port_80: bool,
    /// Proxies between outside clients and the gateway. So many last entries of `X-Forwarded-For` and `Forwarded` are
    /// believed; without any, `X-Forwarded-*` and `Forwarded` from outside are replaced.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub trusted_hops: u32,
}

/// What images may be, and where from.
#[derive(Clone, Debug, Args)]
pub struct ImageRules {
    /// Registries to speak to over plain http.
    #[arg(long, value_name = "HOST")]
    pub insecure_registry: Vec<String>,
    /// Most GiB that one image may unpack to; a larger one is refused.
    #[arg(long, value_name = "GIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=16384))]
    pub max_image_gib: u64,
}

/// Which node this machine is.
#[derive(Clone, Debug, Args)]
pub struct NodeName {
    /// Name of the Node object.
    #[arg(long, default_value = "knoll")]
    pub node_name: String,
}

/// What a process logs.
#[derive(Clone, Debug, Args)]
pub struct Logging {
    /// What to log: `error`, `warn`, `info`, `debug` or `trace`.
    #[arg(long, env = "KNOLL_LOG", default_value = "info")]
    pub log: String,
}

/// Options of `knoll up`.
#[derive(Debug, Args)]
pub struct UpArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// The API server's sockets.
    #[command(flatten)]
    pub api: ApiSockets,
    /// The gateway's sockets.
    #[command(flatten)]
    pub gateway: GatewaySockets,
    /// Domain of the services' names: `<service>.<namespace>.<domain>`; `config-domain` overrides it.
    #[arg(long, default_value = "localhost")]
    pub domain: String,
    /// Images.
    #[command(flatten)]
    pub images: ImageRules,
    /// The node.
    #[command(flatten)]
    pub node: NodeName,
    /// Sandboxes (network namespace, address, cgroup) kept ready for pods to come.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=256))]
    pub sandbox_pool: u32,
    /// Go to the background once everything is ready.
    #[arg(long, short)]
    pub detach: bool,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll api`.
#[derive(Debug, Args)]
pub struct ApiArguments {
    /// Where the objects, keys and images are kept.
    #[command(flatten)]
    pub data: DataDir,
    /// Where it listens.
    #[command(flatten)]
    pub api: ApiSockets,
    /// Images.
    #[command(flatten)]
    pub images: ImageRules,
    /// The node that `node.kubeconfig` is for.
    #[command(flatten)]
    pub node: NodeName,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Which API server, and who to be there.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// The API server and who to be there. Without it, that of the pod it runs in.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// Options of every process that only needs an API server.
#[derive(Debug, Args)]
pub struct RoleArguments {
    /// The API server.
    #[command(flatten)]
    pub access: Access,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll controller`.
#[derive(Debug, Args)]
pub struct ControllerArguments {
    /// Where it keeps what it fetches of images.
    #[command(flatten)]
    pub data: DataDir,
    /// The API server.
    #[command(flatten)]
    pub access: Access,
    /// Where the cluster's activator takes requests for revisions without instances.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "standalone", conflicts_with = "standalone")]
    pub activator: Option<SocketAddr>,
    /// Over `knoll api`: with the controllers that a cluster brings along, and with pods whose requests the gateway
    /// counts and limits.
    #[arg(long)]
    pub standalone: bool,
    /// With `--standalone`: the first port of the gateway for callers from outside, which URLs show unless it is 80.
    #[arg(long, value_name = "PORT", default_value_t = 80, requires = "standalone")]
    pub http_port: u16,
    /// With `--standalone`: the node that pods go to.
    #[command(flatten)]
    pub node: NodeName,
    /// Domain of the services' names: `<service>.<namespace>.<domain>`; `config-domain` overrides it. By default
    /// `svc.` and the cluster's domain; with `--standalone`, `localhost`.
    #[arg(long)]
    pub domain: Option<String>,
    /// Namespace of the control plane's ConfigMaps, and of the lease.
    #[arg(long, default_value = "knative-serving")]
    pub namespace: String,
    /// Suffix of in-cluster names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Images.
    #[command(flatten)]
    pub images: ImageRules,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll gateway`.
#[derive(Debug, Args)]
pub struct GatewayArguments {
    /// The API server.
    #[command(flatten)]
    pub access: Access,
    /// Where it listens.
    #[command(flatten)]
    pub gateway: GatewaySockets,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll broker`.
#[derive(Debug, Args)]
pub struct BrokerArguments {
    /// Where it keeps events.
    #[command(flatten)]
    pub data: DataDir,
    /// The API server.
    #[command(flatten)]
    pub access: Access,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll node`.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// Where it keeps images, volumes and logs.
    #[command(flatten)]
    pub data: DataDir,
    /// The API server.
    #[command(flatten)]
    pub access: Access,
    /// Images.
    #[command(flatten)]
    pub images: ImageRules,
    /// The node.
    #[command(flatten)]
    pub node: NodeName,
    /// The machine's address as others see it.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Ipv4Addr>,
    /// Sandboxes (network namespace, address, cgroup) kept ready for pods to come.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=256))]
    pub sandbox_pool: u32,
    /// The log.
    #[command(flatten)]
    pub logging: Logging,
}

/// Options of `knoll down`.
#[derive(Debug, Args)]
pub struct DownArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// Leave the pods running; the next `up` adopts them.
    #[arg(long)]
    pub keep_pods: bool,
    /// Longest wait for the end, seconds.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// Options of `knoll reset`.
#[derive(Debug, Args)]
pub struct ResetArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Options of `knoll store`.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with the store's files.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Say whether they are whole, and what would be lost by a repair. Changes nothing.
    Verify,
    /// Keep what can be read of a store that does not open. The old files are set aside, not removed.
    Repair {
        /// Accept the loss that is told.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Options of `knoll image`.
#[derive(Debug, Args)]
pub struct ImageArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Take in a tarball: what `docker save` writes, or an OCI layout.
    Load {
        /// The tarball.
        path: PathBuf,
        /// Name for an image that the tarball leaves without one.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Names and digests of the images that are here.
    List,
}

/// Options of `knoll admin`.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// A role of this machine that runs as a process of its own; without it `knoll up`, or `knoll api`.
    #[arg(long, global = true, value_name = "ROLE", value_parser = ["controller", "autoscaler", "gateway", "broker", "node"])]
    pub role: Option<String>,
    /// What to look at.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Whether every part is ready, a line each.
    Ready,
    /// Every number the instance counts, as Prometheus reads them.
    Metrics,
    /// The level of what is logged; with a level, changes it until the next start.
    LogLevel {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: Option<String>,
    },
    /// Any path of the endpoint; `/` lists them.
    Get {
        /// For example `/debug/controllers`.
        path: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_role_is_looked_at_stands_before_or_after_what_is_looked_at() {
        for words in [["--role", "gateway", "metrics"], ["metrics", "--role", "gateway"]] {
            let parsed = Arguments::try_parse_from(["knoll", "admin"].into_iter().chain(words)).expect("it is one");
            let Command::Admin(AdminArguments { role, command: AdminCommand::Metrics, .. }) = parsed.command else {
                panic!("{words:?}")
            };
            assert_eq!(role.as_deref(), Some("gateway"));
        }
    }
}
