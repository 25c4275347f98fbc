//go:build unix

package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// pollEvery is how often a waiting call looks again.
const pollEvery = 10 * time.Millisecond

// Node is one `locknode serve` process, running or not.
//
// Its methods may be called from several goroutines.
type Node struct {
	ID  string
	Dir string // its data directory

	binary  string
	extra   []string // arguments beside those that say who and where it is
	env     []string
	logPath string

	mu      sync.Mutex // guards what follows
	where   location
	args    []string
	process *process // nil before the first Start
	conn    *grpc.ClientConn
	secure  credentials.TransportCredentials // of conn; nil: plain text
	caller  credentials.PerRPCCredentials    // of conn; nil: nothing is shown
}

// location is where a node runs and listens. Nodes may exchange theirs.
type location struct {
	place string // the ID of the node for which it was made
	host  string
	ports *Ports
	enter func() error // see Options.Enter
}

func (n *Node) location() location {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.where
}

// Place is the ID of the node that was started first where this one runs: its own
// unless they have exchanged their addresses. [Options.Host] knows the place by it.
func (n *Node) Place() string { return n.location().place }

// API is the address of the node's gRPC API.
func (n *Node) API() string { return n.at(0) }

// HTTP is the address of the node's HTTP server.
func (n *Node) HTTP() string { return n.at(1) }

// Raft is the address on which the node talks Raft.
func (n *Node) Raft() string { return n.at(2) }

// Gossip is the address on which the node gossips.
func (n *Node) Gossip() string { return n.at(3) }

func (n *Node) at(port int) string { return n.location().at(port) }

func (l location) at(port int) string {
	return net.JoinHostPort(l.host, strconv.Itoa(l.ports.base+port))
}

// PID is the process ID of the node's present or last process, 0 before the first.
func (n *Node) PID() int {
	if p := n.current(); p != nil {
		return p.pid
	}
	return 0
}

// Running reports whether the node's process is there; a paused one is.
func (n *Node) Running() bool {
	p := n.current()
	return p != nil && !p.over()
}

// Exited is closed when the node's present process has ended and been reaped.
// For a node that was never started it is nil.
func (n *Node) Exited() <-chan struct{} {
	if p := n.current(); p != nil {
		return p.exited
	}
	return nil
}

// ExitCode is the exit code of the node's last process: -1 while it runs, when a
// signal ended it, and before the first Start.
func (n *Node) ExitCode() int {
	p := n.current()
	if p == nil || !p.over() {
		return -1
	}
	return p.state.ExitCode()
}

// LogPath is the file that collects what the node prints in all its lives.
func (n *Node) LogPath() string { return n.logPath }

// Logs is what the node has printed so far, in all its lives.
func (n *Node) Logs() string {
	b, err := os.ReadFile(n.logPath)
	if err != nil {
		return ""
	}
	return string(b)
}

// Start launches the process and does not wait until it serves. The arguments
// are added to those the node was made with, for this life only. It returns an
// error, and changes nothing, when the process runs already.
func (n *Node) Start(args ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !n.process.over() {
		return fmt.Errorf("start node %s: it runs already as process %d", n.ID, n.process.pid)
	}
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.ID, err)
	}
	cmd := exec.Command(n.binary, append(append([]string(nil), n.args...), args...)...)
	cmd.Env = n.env
	cmd.Stdout, cmd.Stderr = log, log
	p, err := launchProcess(cmd, n.where.enter, func() { _ = log.Close() }) // the process has its own descriptor
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.ID, err)
	}
	n.process = p
	return nil
}

func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// signal sends sig to the process if it runs.
func (n *Node) signal(sig syscall.Signal) (*process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.process
	if p == nil || p.over() {
		return nil, fmt.Errorf("send %v to node %s: it is not running", sig, n.ID)
	}
	if err := p.handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("send %v to node %s: %w", sig, n.ID, err)
	}
	return p, nil
}

// Kill ends the process with SIGKILL and waits until it has been reaped.
func (n *Node) Kill() error {
	p, err := n.signal(syscall.SIGKILL)
	if err != nil {
		return err
	}
	<-p.exited
	return nil
}

// Stop asks the process to end (SIGTERM) and waits until it has. When ctx ends
// first the process may still be running.
func (n *Node) Stop(ctx context.Context) error {
	p, err := n.signal(syscall.SIGTERM)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return fmt.Errorf("stop node %s: %w; its last lines:\n%s", n.ID, context.Cause(ctx), n.Tail())
	}
	if code := p.state.ExitCode(); code != 0 {
		return fmt.Errorf("stop node %s: it ended with %v; its last lines:\n%s", n.ID, p.state, n.Tail())
	}
	return nil
}

// Pause stops the process where it stands (SIGSTOP).
func (n *Node) Pause() error {
	_, err := n.signal(syscall.SIGSTOP)
	return err
}

// Resume lets a paused process go on (SIGCONT).
func (n *Node) Resume() error {
	_, err := n.signal(syscall.SIGCONT)
	return err
}

// Restart kills the process if it runs, starts it again and waits until it is ready.
func (n *Node) Restart(ctx context.Context) error {
	if n.Running() {
		if err := n.Kill(); err != nil {
			return err
		}
	}
	if err := n.Start(); err != nil {
		return err
	}
	return n.WaitReady(ctx)
}

// WaitReady waits until the node says that it serves: a leader is known and what
// was committed has been applied. It returns early, with what the node printed
// last, when the process ends.
func (n *Node) WaitReady(ctx context.Context) error {
	p := n.current()
	if p == nil {
		return fmt.Errorf("wait for node %s: it was never started", n.ID)
	}
	last := "it does not answer"
	for {
		status, err := n.Status(ctx)
		switch {
		case err == nil && status.GetReady():
			return nil
		case err == nil:
			last = status.GetNotReadyReason()
		}
		select {
		case <-p.exited:
			return &ExitedError{Node: n.ID, State: p.state.String(), Tail: n.Tail()}
		case <-ctx.Done():
			return fmt.Errorf("wait for node %s: %w: %s; its last lines:\n%s", n.ID, context.Cause(ctx), last, n.Tail())
		case <-time.After(pollEvery):
		}
	}
}

// ExitedError says that a process ended that was expected to run.
type ExitedError struct {
	Node  string
	State string // how it ended
	Tail  string // the last lines it printed
}

func (e *ExitedError) Error() string {
	return fmt.Sprintf("node %s ended: %s; its last lines:\n%s", e.Node, e.State, e.Tail)
}

// portsTaken reports whether the process ended because another process had its ports.
func (e *ExitedError) portsTaken() bool {
	return strings.Contains(e.Tail, syscall.EADDRINUSE.Error())
}

// Status asks this node, and no other, for its status. An answer takes at most a
// second; a node that is down, paused or not yet listening is an error.
func (n *Node) Status(ctx context.Context) (*apiv1.StatusResponse, error) {
	conn, err := n.Conn()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return apiv1.NewLocksClient(conn).Status(ctx, &apiv1.StatusRequest{})
}

// Conn is a gRPC connection to this node, shared by all who ask for it and
// closed with the cluster. It comes back by itself after a restart.
func (n *Node) Conn() (*grpc.ClientConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		return n.conn, nil
	}
	secure := n.secure
	if secure == nil {
		secure = insecure.NewCredentials()
	}
	var options []grpc.DialOption
	if n.caller != nil {
		options = append(options, grpc.WithPerRPCCredentials(n.caller))
	}
	conn, err := grpc.NewClient("passthrough:///"+n.where.at(0), append(options,
		grpc.WithTransportCredentials(secure),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: time.Second,
			Backoff:           backoff.Config{BaseDelay: pollEvery, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond},
		}))...)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", n.ID, err)
	}
	n.conn = conn
	return conn, nil
}

// AddArgs adds arguments to the command line of all lives of the node.
func (n *Node) AddArgs(args ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.extra = append(n.extra, args...)
	n.args = append(n.args, args...)
}

// Secure has this package use these credentials from now on when it talks to the node.
func (n *Node) Secure(c credentials.TransportCredentials) {
	n.closeConn()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.secure = c
}

// Identify has this package show these credentials from now on when it talks to the node.
func (n *Node) Identify(c credentials.PerRPCCredentials) {
	n.closeConn()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.caller = c
}

func (n *Node) closeConn() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		_ = n.conn.Close() // says only that it was closed before
		n.conn = nil
	}
}

func (n *Node) move(to location) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.where = to
}

func (n *Node) setArgs(args []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.args = args
}

// Tail is the end of what the node printed.
func (n *Node) Tail() string { return tail(n.logPath) }

func tail(path string) string {
	const lines = 15
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}

// newNode prepares a node; nothing is started and nothing is written.
func newNode(dir, id, place string, ports *Ports, o *Options) (*Node, error) {
	host, err := o.Host(place)
	if err != nil {
		return nil, err
	}
	return &Node{
		ID:      id,
		Dir:     filepath.Join(dir, id),
		where:   location{place: place, host: host, ports: ports, enter: func() error { return o.Enter(place) }},
		binary:  o.Binary,
		env:     o.Env,
		logPath: filepath.Join(dir, id+".log"),
	}, nil
}
