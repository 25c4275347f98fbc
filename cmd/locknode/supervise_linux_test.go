package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChildIsToldWhenItsSupervisorIsKilled(t *testing.T) {
	t.Parallel()
	r, _ := supervised(t, "1s", `trap 'echo caught; exit 0' TERM; echo pid $$; while :; do sleep 0.05; done`)
	pid := strings.TrimPrefix(r.await("pid"), "pid ")
	r.signal(syscall.SIGKILL)
	r.await("caught")
	eventually(t, "the child has ended", func() bool { return !alive(pid) })
}

// openPTY makes a terminal and returns its two ends.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("name terminal: %v", err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = slave.Close()
		_ = master.Close()
	})
	return master, slave
}

// terminal is a command with a terminal of its own, at which the test types.
type terminal struct {
	*running
	master *os.File
}

func startAtTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close() // so that reading from the master ends with the last process
	r := &running{t: t, cmd: cmd, lines: make(chan string, 1000)}
	go readLines(master, r.lines)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &terminal{r, master}
}

func (x *terminal) types(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatalf("type %q: %v", keys, err)
	}
}

func TestChildAtATerminalReadsAndIsInterrupted(t *testing.T) {
	t.Parallel()
	if signal.Ignored(os.Interrupt) {
		t.Skip("interrupt was ignored when the tests were started, and a shell cannot undo that") // as after "&" in a script
	}
	cmd := command(t, "supervise", "1s", "/bin/sh", "-c", `echo waiting; read x; echo "got $x"; trap 'echo caught; exit 5' INT; echo pid $$; sleep 60`)
	x := startAtTerminal(t, cmd)
	x.await("waiting")
	x.types("hello\n")
	x.await("got hello")
	awaitInGroup(t, strings.TrimPrefix(strings.TrimSpace(x.await("pid")), "pid "), "sleep")
	x.types("\x03") // Ctrl-C
	x.await("caught")
	if got := x.wait(); got != 5 {
		t.Errorf("exit code: got %d, want 5", got)
	}
}

func TestChildThatStopsWithoutAShellGoesOn(t *testing.T) {
	t.Parallel()
	cmd := command(t, "supervise", "1s", "/bin/sh", "-c", `trap 'echo continued' CONT; echo waiting; until read x; do :; done; echo "got $x"`)
	x := startAtTerminal(t, cmd)
	x.await("waiting")
	x.types("\x1a") // Ctrl-Z, without a shell that could continue the job
	x.await("continued")
	x.types("hello\n")
	x.await("got hello")
	if got := x.wait(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestShellStopsAndContinuesTheJob(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here, whose messages the test expects")
	}
	supervise := command(t, "supervise", "1s")
	shell := exec.Command("bash", "--norc", "--noprofile", "-i")
	shell.Env = append(supervise.Env, "PS1=", "SUPERVISE="+supervise.Path)
	x := startAtTerminal(t, shell)
	x.types(`"$SUPERVISE" 1s /bin/sh -c 'echo wait''ing; read x; echo "got $x"; read y; echo "then $y"'` + "\n")
	x.await("waiting")
	x.types("one\n")
	x.await("got one")
	x.types("\x1a") // Ctrl-Z
	x.await("Stopped")
	x.types("echo shell''here\n")
	x.await("shellhere")
	x.types("fg\n")
	x.types("two\n")
	x.await("then two")
	x.types("echo shell''again; exit 7\n")
	x.await("shellagain")
	if got := x.wait(); got != 7 {
		t.Errorf("exit code of the shell: got %d, want 7", got)
	}
}

func TestChildGetsTheTerminalWhenItAsksForIt(t *testing.T) {
	t.Parallel()
	// Standard output is not a terminal, so the child does not get the terminal at the start.
	// It is stopped when it reads, and then gets the terminal.
	cmd := command(t, "supervise", "1s", "/bin/sh", "-c", `echo waiting >/dev/tty; read x; echo "got $x" >/dev/tty; exit 6`)
	cmd.Args = append([]string{"sh", "-c", `"$0" "$@" >/dev/null`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	x := startAtTerminal(t, cmd)
	x.await("waiting")
	x.types("hello\n")
	x.await("got hello")
	if got := x.wait(); got != 6 {
		t.Errorf("exit code: got %d, want 6", got)
	}
}

// inContainer makes a command process 1 of a new PID namespace, as in a container.
func inContainer(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err == nil {
		err = exec.Command(unshare, "--pid", "--fork", "--mount-proc", "true").Run()
	}
	if err != nil {
		t.Skipf("NOT TESTED: no process namespaces here, which root and unshare make: %v", err)
	}
	cmd.Path, cmd.Args = unshare, append([]string{unshare, "--kill-child", "--pid", "--fork", "--mount-proc", cmd.Path}, cmd.Args[1:]...)
	return cmd
}

func TestProcess1ReapsWhatOthersLeaveBehind(t *testing.T) {
	t.Parallel()
	// The parents of three grandchildren exit first; the grandchildren end and must be reaped.
	r := start(t, inContainer(t, command(t, "supervise", "1s", "/bin/sh", "-c", `
		for i in 1 2 3; do sh -c 'sleep 0.1 & exec true'; done
		until ! cat /proc/[0-9]*/stat | grep -q '(sleep)'; do :; done
		echo gone`)))
	r.await("gone")
	if got := r.wait(); got != 0 {
		t.Errorf("exit code: got %d, want 0", got)
	}
}

func TestProcess1EndsSoonAfterALoss(t *testing.T) {
	t.Parallel()
	cmd, lose := losable(t, command(t, "supervise", "1h", "/bin/sh", "-c", `(sleep 60 & exec sleep 60) & sleep 60 & echo waiting; wait`))
	r := start(t, inContainer(t, cmd))
	r.await("waiting")
	lose()
	if got := r.wait(); got != exitLost { // wait kills it if it does not end
		t.Errorf("exit code: got %d, want %d", got, exitLost)
	}
}

// zombie starts a process group whose only process has ended and is not reaped.
func zombie(t *testing.T) (g group, reap func()) {
	t.Helper()
	cmd := exec.Command("/bin/true")
	g.pidfd = -1
	cmd.SysProcAttr = childAttributes(false, -1, &g.pidfd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.id = cmd.Process.Pid
	eventually(t, "it has ended", func() bool { return !alive(fmt.Sprint(g.id)) })
	return g, func() { _ = cmd.Wait() }
}

func TestGroupOfZombiesIsNotAlive(t *testing.T) {
	g, reap := zombie(t)
	defer reap()
	for _, g := range []group{g, {id: g.id, pidfd: -1}} {
		if err := g.signal(0); err != nil {
			t.Errorf("signal 0 to a group of zombies: %v, want it to succeed", err)
		}
		if g.alive() {
			t.Errorf("group %+v has ended and is reported as alive", g)
		}
	}
}

func TestWaitIsExplainedAtATerminalOnly(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "waiting/a")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run", "waiting/a", "--", "/bin/true"}, {"acquire", "waiting/a", "--wait", "1m"}} {
		// After a second of waiting, the command asks for the state of the lock once, for at
		// most two seconds. On a busy machine it may enter the queue later than that, or get
		// no answer in time: then the line says less, but nothing wrong.
		want := fmt.Sprintf(": held by test (token %d) since ", g.Token())
		eventually(t, args[0]+" says who holds the lock, and its place in the queue", func() bool {
			cmd := command(t, "locknode", args...)
			cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","))
			x := startAtTerminal(t, cmd)
			line := strings.TrimSpace(x.await("waiting for"))
			x.signal(syscall.SIGTERM)
			x.wait()
			const begins = "locknode: waiting for waiting/a"
			if rest, ok := strings.CutPrefix(line, begins); !ok || rest != "" && !strings.HasPrefix(rest, want) {
				t.Fatalf("%s: got %q, want %q, and then nothing or %q", args[0], line, begins, want)
			}
			return strings.Contains(line, want) && strings.Contains(line, "; next in the queue")
		})
	}
	for _, args := range [][]string{{"run", "-w", "1500ms", "waiting/a", "--", "/bin/true"}, {"acquire", "waiting/a", "--wait", "1500ms"}} {
		if o := locknode(t, args...); o.code != exitNotAcquired || strings.Contains(o.stderr, "waiting for") {
			t.Errorf("%s without a terminal: got %+v, want no message during the wait", args[0], o)
		}
	}
}
