package faultfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
)

// Run is the program, without its name in args. It returns the exit code.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s, code, ok := parse(args, stderr)
	if !ok {
		return code
	}
	if err := s.run(stdin, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "faultfs: %v\n", err)
		if errors.Is(err, ErrCannotMount) {
			return exitCannotMount
		}
		return exitFailed
	}
	return exitOK
}

func (s settings) run(stdin io.Reader, stdout io.Writer) error {
	syscall.Umask(0) // that of the callers has been applied already
	v, err := Open(s.root, s.limit)
	if err != nil {
		return err
	}
	defer v.Close()
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	m, err := MountAt(v, s.mount)
	if err != nil {
		return err
	}
	return errors.Join(obey(stopped, &Control{m}, stdin, stdout), m.Unmount())
}

// obey carries out commands until there are no more, or it is told to stop. The
// goroutine that reads ends with the process.
func obey(stopped context.Context, c *Control, stdin io.Reader, stdout io.Writer) error {
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	lines, ended := make(chan string), make(chan error, 1)
	go func() {
		in := bufio.NewScanner(stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		ended <- in.Err()
	}()
	for {
		select {
		case <-stopped.Done():
			return nil
		case err := <-ended:
			return err
		case line := <-lines:
			answer, quit := c.Do(line)
			if _, err := fmt.Fprintln(stdout, answer); err != nil || quit {
				return err
			}
		}
	}
}
