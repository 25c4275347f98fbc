//go:build unix

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// A lock holder in a process of its own, which can be killed and paused. It answers questions,
// one a line, so that its answers after a pause are of after the pause.

const holderRole = "holder"

// holderMain is the process: it acquires args[1] at the endpoints args[0] in a session with the
// TTL args[2], prints that, and answers each line that it reads with a line.
func holderMain(args []string) int {
	ttl, err := time.ParseDuration(args[2])
	if err != nil {
		fmt.Println(err)
		return 2
	}
	c, err := client.Dial(context.Background(), strings.Split(args[0], ","), client.SessionTTL(ttl), client.Holder(holderRole))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	g, err := c.Lock(context.Background(), args[1])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("holds", g.Token())
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		fmt.Println(holderAnswer(g, questions.Text()))
	}
	return 0
}

func holderAnswer(g *client.Grant, question string) string {
	switch question {
	case "held?": // checks the grant first of all
		if err := g.Err(); err != nil {
			return "no: " + err.Error()
		}
		return "yes"
	case "notified?": // whether Lost is closed
		select {
		case <-g.Lost():
		case <-time.After(patience):
			return "no: the channel is open"
		}
		<-g.Context().Done()
		var lost *client.LostError
		if cause := context.Cause(g.Context()); !errors.As(cause, &lost) || !g.Deadline().IsZero() {
			return fmt.Sprintf("no: cause %v, deadline %v", cause, g.Deadline())
		}
		return "yes"
	case "unlock": // the other client checks whether it does harm
		return fmt.Sprint(g.Unlock())
	}
	return "what?"
}

// holderProcess is such a process.
type holderProcess struct {
	*command
	token uint64
	lines int // of what it printed that have been read
}

// startHolder starts one and waits until it holds the lock.
func startHolder(t *testing.T, endpoints []string, name string, ttl time.Duration) *holderProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0], strings.Join(endpoints, ","), name, ttl.String())
	cmd.Env = cleanEnvironment(actAs + "=" + holderRole)
	h := &holderProcess{command: launch(t, cmd)}
	line := h.read(t)
	if _, err := fmt.Sscanf(line, "holds %d", &h.token); err != nil {
		t.Fatalf("holder of %s: it prints %q", name, line)
	}
	return h
}

// ask sends a question; the answer can be read later.
func (h *holderProcess) ask(t *testing.T, question string) {
	t.Helper()
	_, err := fmt.Fprintln(h.stdin, question)
	must(t, err)
}

// read waits for the next line that it prints.
func (h *holderProcess) read(t *testing.T) string {
	t.Helper()
	h.lines++
	eventually(t, "the holder prints a line", func() bool {
		return strings.Count(h.stdout.String(), "\n") >= h.lines
	})
	return strings.Split(h.stdout.String(), "\n")[h.lines-1]
}
