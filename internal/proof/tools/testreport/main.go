package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

// run reads to the end of in. A line that is no event is passed on as it is: go itself
// says so what it cannot say in an event.
func run(in io.Reader, out io.Writer) error {
	r := newReport(out)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil {
				_, _ = out.Write(line)
			} else {
				r.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return r.end()
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}
