package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	network  = "10.77.0."
	bridge   = "br0"
	lastHost = 200
	nobody   = "02:00:00:00:00:ff" // a hardware address that no host has
)

// Available says why labs cannot be made here, nil if they can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the program ip, of iproute2, is needed: %w", err)
	}
	cmd := Command("ip", "link", "add", bridge, "type", "bridge")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a bridge in a network namespace: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Command is a program to be run in a network namespace of its own. It is killed when the
// thread that starts it exits.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Lab is a bridge and the hosts at it. Its methods may be called by several
// goroutines.
type Lab struct {
	mu    sync.Mutex // guards hosts and cut
	hosts map[string]*host
	cut   map[[2]string]bool // from, to
}

// host is a namespace with an address.
type host struct {
	address string
	device  string
	ns      *os.File      // nil: the hub's, which is this process's
	thread  int           // that is kept in it
	leave   chan struct{} // ends the thread
	left    chan struct{} // closed when it has ended
}

// New makes the bridge, in the namespace of this process, which is the host of the
// name hub. The namespace must be this process's own.
func New(hub string) (*Lab, error) {
	l := &Lab{hosts: map[string]*host{}, cut: map[[2]string]bool{}}
	h := &host{address: network + "254", device: bridge}
	l.hosts[hub] = h
	return l, h.ip(
		"link set lo up",
		"link add "+bridge+" type bridge",
		"addr add "+h.address+"/24 dev "+bridge,
		"link set "+bridge+" up",
	)
}

// Host makes a host, or returns the one that there is, and says at which address.
func (l *Lab) Host(name string) (address string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.hosts[name]; h != nil {
		return h.address, nil
	}
	number := len(l.hosts) // the hub is one of them
	if number > lastHost {
		return "", fmt.Errorf("host %s: there are %d already", name, number)
	}
	h := &host{address: fmt.Sprint(network, number), device: "eth0", leave: make(chan struct{}), left: make(chan struct{})}
	if err := h.open(); err != nil {
		return "", fmt.Errorf("host %s: %w", name, err)
	}
	wire := fmt.Sprint("veth", number)
	hub := &host{}
	err = hub.ip(
		"link add "+wire+" type veth peer name "+h.device+" netns "+fmt.Sprint(h.thread),
		"link set "+wire+" master "+bridge,
		"link set "+wire+" up",
	)
	if err == nil {
		err = h.ip("link set lo up", "addr add "+h.address+"/24 dev "+h.device, "link set "+h.device+" up")
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("host %s: %w", name, err), h.close())
	}
	l.hosts[name] = h
	return h.address, nil
}

// Enter moves the calling goroutine's thread into a host's namespace for good: it
// has to be locked, and to be thrown away. Processes that it starts are there.
func (l *Lab) Enter(name string) error {
	l.mu.Lock()
	h := l.hosts[name]
	l.mu.Unlock()
	if h == nil {
		return fmt.Errorf("there is no host %s", name)
	}
	return h.enter()
}

// Cut cuts the ways from some hosts to others; what is cut stays cut.
func (l *Lab) Cut(from, to []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range from {
		var commands []string
		for _, t := range to {
			if f == t || l.cut[[2]string{f, t}] {
				continue
			}
			if l.hosts[f] == nil || l.hosts[t] == nil {
				return fmt.Errorf("cut the way from %s to %s: one of them is no host", f, t)
			}
			l.cut[[2]string{f, t}] = true
			commands = append(commands, "neigh replace "+l.hosts[t].address+" lladdr "+nobody+" nud permanent dev "+l.hosts[f].device)
		}
		if err := l.hosts[f].ip(commands...); err != nil {
			return err
		}
	}
	return nil
}

// Heal opens all ways.
func (l *Lab) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	commands := map[string][]string{}
	for way := range l.cut {
		commands[way[0]] = append(commands[way[0]], "neigh del "+l.hosts[way[1]].address+" dev "+l.hosts[way[0]].device)
	}
	clear(l.cut)
	var errs []error
	for name, c := range commands {
		errs = append(errs, l.hosts[name].ip(c...))
	}
	return errors.Join(errs...)
}

// Close lets the namespaces go. Those in which processes run stay as long.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.close())
	}
	clear(l.hosts)
	return errors.Join(errs...)
}

// open makes the namespace, and keeps a thread in it.
func (h *host) open() error {
	opened := make(chan error)
	go func() {
		defer close(h.left)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		h.thread = unix.Gettid()
		opened <- err
		if err == nil {
			<-h.leave
		}
	}()
	return <-opened
}

func (h *host) close() error {
	if h.ns == nil {
		return nil
	}
	close(h.leave)
	<-h.left
	return h.ns.Close()
}

func (h *host) enter() error {
	if h.ns == nil {
		return nil // the thread is there
	}
	if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace of %s: %w", h.address, err)
	}
	return nil
}

// ip runs commands of the program ip in the host's namespace.
func (h *host) ip(commands ...string) error {
	if len(commands) == 0 {
		return nil
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // see open
		err := h.enter()
		if err == nil {
			cmd := exec.Command("ip", "-batch", "-")
			cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
			var out []byte
			if out, err = cmd.CombinedOutput(); err != nil {
				err = fmt.Errorf("ip %q: %w: %s", slices.Clone(commands), err, bytes.TrimSpace(out))
			}
		}
		done <- err
	}()
	return <-done
}
