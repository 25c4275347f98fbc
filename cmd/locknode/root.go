package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

// program is one run of locknode with its files and environment.
type program struct {
	stdin          *os.File
	stdout, stderr io.Writer
	lookup         func(string) (string, bool) // a variable of the environment
	environ        func() []string             // the whole environment; nil: empty
}

// app has what the commands share.
type app struct {
	program
	json           bool
	output         string
	endpoints      []string
	connectTimeout time.Duration
	tls            tlsFiles
	tokenFile      string
	plainToken     bool
	secret         func() string // the access token; nil: there is none
	hangups        chan struct{} // wakes a command that reloads
}

// The groups of commands in the help.
const (
	groupLocks   = "locks"
	groupCluster = "cluster"
	groupNode    = "node"
)

// defaultEndpoints are the nodes of `locknode dev`. The first is also the default address
// of a single node.
var defaultEndpoints = []string{"127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"}

// run runs the command in args and returns the exit code.
func (p program) run(args []string) int {
	// Signals are caught until the end: if one killed the program after it has printed its
	// result, the exit code would say that there is no result.
	signals := make(chan os.Signal, 4)
	notify(signals, append(slices.Clone(stops), syscall.SIGHUP))
	failPipes()
	a := &app{program: p, hangups: make(chan struct{}, 1)}
	root := a.root()
	root.SetArgs(args)
	hangup := func() bool { return false }
	if reloads(root, args) {
		hangup = a.hangup
		signal.Notify(signals, syscall.SIGHUP) // under nohup as well: it only reloads
	}
	ctx := signalContext(signals, hangup)
	err := root.ExecuteContext(ctx)
	var sig signalled
	if errors.As(context.Cause(ctx), &sig) && errors.Is(err, context.Canceled) {
		err = &exitError{exitSignal + sig.number, err}
	}
	a.json = a.json || asksForJSON(args)
	a.report(err)
	return exitCode(err)
}

// failPipes makes a write to a pipe without a reader fail. On standard output Go would end
// the program otherwise, and acquire could not release its lock first. Child processes
// start with the default action of SIGPIPE.
func failPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// stops are the signals that stop the program. QUIT is one of them, because a place in a
// queue has to be given up first. HUP stops every command but those that reload.
var stops = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}

// reloadsAnnotation marks a command that SIGHUP reloads and does not stop.
const reloadsAnnotation = "reloads"

func reloads(root *cobra.Command, args []string) bool {
	c, _, err := root.Find(args)
	return err == nil && c.Annotations[reloadsAnnotation] != ""
}

// hangup wakes the command to reload, and returns true: the program does not stop.
func (a *app) hangup() bool {
	select {
	case a.hangups <- struct{}{}:
	default: // a reload is pending
	}
	return true
}

// signalContext returns a context that ends at the first signal. HUP ends it only if hangup
// returns false.
func signalContext(signals <-chan os.Signal, hangup func() bool) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { // until the program exits
		for s := range signals {
			if s != syscall.SIGHUP || !hangup() {
				cancel(signalled{int(s.(syscall.Signal))})
			}
		}
	}()
	return ctx
}

// dumpOnQuit restores what Go does at QUIT: it prints all goroutines and exits. For a node
// that is worth more than an orderly stop.
func dumpOnQuit() { signal.Reset(syscall.SIGQUIT) }

// notify relays those of the signals that this process was not told to ignore.
func notify(c chan<- os.Signal, signals []os.Signal) {
	if signals = notIgnored(signals); len(signals) > 0 { // to Notify, no signals mean all
		signal.Notify(c, signals...)
	}
}

// notIgnored leaves out the signals that this process was told to ignore.
func notIgnored(signals []os.Signal) []os.Signal {
	return slices.DeleteFunc(slices.Clone(signals), signal.Ignored)
}

func (a *app) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "locknode",
		Short: "a replicated lock service",
		Long: `Locknode is a lock service: three or five nodes replicate one table of locks. A client
acquires a lock at any of them, and all of them see it as held. If the holder is killed,
the lock becomes free after its TTL; if a node is killed, nothing is lost.

Results go to standard output, logs and errors to standard error.

Environment variables. A flag takes precedence; an empty variable counts as not set:
  LOCKNODE_ENDPOINTS        --endpoints of all commands that talk to a cluster, except bench
  LOCKNODE_CONNECT_TIMEOUT  --connect-timeout of the same commands
  LOCKNODE_TLS_CA, LOCKNODE_TLS_CERT, LOCKNODE_TLS_KEY
                            --tls-ca, --tls-cert and --tls-key of the same commands
  LOCKNODE_TOKEN_FILE       --token-file of the same commands; LOCKNODE_TOKEN is the access
                            token itself, for which there is no flag
  LOCKNODE_CONFIG           --config of serve
  LOCKNODE_DATA_DIR         --data-dir of serve and reseed; serve takes every setting from
                            a variable like this: LOCKNODE_LISTEN, LOCKNODE_NODE_ID, …
  LOCKNODE_NAME, LOCKNODE_FENCING_TOKEN, LOCKNODE_HELD
                            set by run for its command: see locknode run --help`,
		Example: `  locknode demo                                  watch a cluster survive the loss of its leader
  locknode dev                                   run three nodes on this machine
  locknode run nightly -- ./backup.sh            run a command under a lock
  locknode acquire orders/42 --ttl 30s           acquire a lock for 30 s
  locknode serve --config /etc/locknode.yaml     run one node of a real cluster`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if version && len(args) == 0 {
				return a.version()
			}
			return unknownCommand(c, args)
		},
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(pageWriter{a.stdout}) // cobra repeats arguments
	root.SetErr(pageWriter{a.stderr})
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return hinted(usageError("%s: %w", c.CommandPath(), err), "see `%s --help`", c.CommandPath())
	})
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "format of results: text or json")
	root.Flags().BoolVar(&version, "version", false, "print the version of this program")
	root.AddGroup(
		&cobra.Group{ID: groupLocks, Title: "Locks:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupNode, Title: "Nodes:"},
	)
	root.AddCommand(
		a.acquireCommand(), a.renewCommand(), a.releaseCommand(),
		a.getCommand(), a.lsCommand(), a.forceReleaseCommand(),
		a.statusCommand(), a.waitCommand(), a.membersCommand(), a.transferLeadershipCommand(),
		a.tokenCommand(), a.policyCommand(), a.authCommand(),
		a.serveCommand(), a.reseedCommand(), a.tlsCommand(), a.devCommand(), a.versionCommand(),
	)
	root.AddCommand(a.operatorCommands()...)
	root.AddCommand(a.gossipKeyCommand(), a.reloadCommand())
	root.AddCommand(a.processCommands()...)
	completeArguments(root)
	return root
}

// completeArguments stops shells from offering files for the names of locks and members. It
// leaves run alone, whose arguments include a command line.
func completeArguments(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "run" {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	outputs := cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)
	if err := root.RegisterFlagCompletionFunc("output", outputs); err != nil {
		panic(err) // there is no such flag
	}
}

func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	err := usageError("unknown command %q", args[0])
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		return hinted(err, "did you mean %s?", strings.Join(like, " or "))
	}
	return hinted(err, "`locknode --help` lists the commands")
}

// prepare runs before every command.
func (a *app) prepare(*cobra.Command, []string) error {
	switch a.output {
	case "text":
	case "json":
		a.json = true
	default:
		return usageError("--output: is %q, must be text or json", a.output)
	}
	return nil
}

// arguments checks the number of arguments. what names them, as in the usage line.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		if most == 0 {
			return hinted(usageError("%s: has arguments %q, must have none", c.CommandPath(), args), "see `%s --help`", c.CommandPath())
		}
		return hinted(usageError("%s: has %s, must have %s", c.CommandPath(), counted(len(args), "argument"), what), "see `%s --help`", c.CommandPath())
	}
}

// clientFlags adds the flags of every command that talks to a cluster.
func (a *app) clientFlags(c *cobra.Command) {
	a.endpointsFlag(c)
	addDuration(c.Flags(), &a.connectTimeout, "connect-timeout", "", 5*time.Second,
		"give up, with exit code 69, if no leader is reached for this long (LOCKNODE_CONNECT_TIMEOUT)")
	c.PreRunE = func(c *cobra.Command, _ []string) error { return a.clientEnvironment(c) }
}

func (a *app) endpointsFlag(c *cobra.Command) {
	c.Flags().StringSliceVar(&a.endpoints, "endpoints", nil,
		"API addresses of one or more nodes (LOCKNODE_ENDPOINTS; default "+strings.Join(defaultEndpoints, ",")+")")
	a.tlsFlags(c)
}

// clientEnvironment takes the values of flags that are not given from the environment.
func (a *app) clientEnvironment(c *cobra.Command) error {
	if err := notEmpty(c, "endpoints"); err != nil {
		return err
	}
	source := "--endpoints"
	if v, ok := a.lookup("LOCKNODE_ENDPOINTS"); ok && !c.Flags().Changed("endpoints") {
		a.endpoints, source = splitList(v), "LOCKNODE_ENDPOINTS"
	}
	if v, ok := a.lookup("LOCKNODE_CONNECT_TIMEOUT"); ok && v != "" && !c.Flags().Changed("connect-timeout") {
		d, err := parseDuration(v)
		if err != nil {
			return usageError("LOCKNODE_CONNECT_TIMEOUT: %w", wrong(v, err))
		}
		a.connectTimeout = d
	}
	if a.connectTimeout <= 0 {
		return usageError("--connect-timeout: is %v, must be more than 0", a.connectTimeout)
	}
	for _, e := range a.endpoints {
		if err := dial(e); err != nil {
			return usageError("%s: %w", source, wrong(e, err))
		}
	}
	return a.tlsEnvironment(c)
}

// addresses are the endpoints, or the default ones if none are given.
func (a *app) addresses() []string {
	if len(a.endpoints) == 0 {
		return defaultEndpoints
	}
	return a.endpoints
}

// dial returns a client. It connects when it is first used.
func (a *app) dial(ctx context.Context, opts ...client.Option) (*client.Client, error) {
	return client.Dial(ctx, a.addresses(), slices.Concat([]client.Option{client.ConnectTimeout(a.connectTimeout)}, a.security(), opts)...)
}

func closeQuietly(c *client.Client) {
	_ = c.Close() // nothing is held, or the caller returns a more important error
}

// say prints a message for the user on standard error.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, "locknode: %s\n", quote.Lines(fmt.Sprintf(format, args...)))
}

// report prints an error and what to do about it.
func (a *app) report(err error) {
	var exit *exitError
	if err == nil || errors.As(err, &exit) && exit.err == nil || isUnread(err) {
		return
	}
	hint := advice(err)
	if a.json {
		a.reportJSON(err, hint)
		return
	}
	a.say("%v", err)
	if hint != "" {
		fmt.Fprintf(a.stderr, "  %s\n", quote.Lines(hint))
	}
}

func (a *app) reportJSON(err error, hint string) {
	out := document.Error{Code: "other", Message: err.Error(), ExitCode: exitCode(err), Hint: hint}
	var own *apiv1.Error
	switch {
	case errors.As(err, &own):
		out.Code = apiv1.Code(own.GetCode()).String()
	case out.ExitCode == exitUsage:
		out.Code = "usage"
	}
	if holders := holdersOf(err); len(holders) > 0 {
		out.Holders = holderDocuments(holders, true)
	}
	_ = writeJSON(a.stderr, document.Failure{Error: out}) // there is no other place to report it
}
