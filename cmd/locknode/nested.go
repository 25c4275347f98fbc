package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/locknode/locknode/client"
)

// A command that run has started may start run again. A wait there for a lock that a
// surrounding run holds would never end, so it is refused.

// heldVariable has a line for each lock that the surrounding runs hold: its token and its
// quoted name. It covers all of them, while LOCKNODE_NAME and LOCKNODE_FENCING_TOKEN are those of
// the innermost run alone.
const heldVariable = "LOCKNODE_HELD"

// outerLock is a lock that a surrounding run held when it started its command.
type outerLock struct {
	name  string
	token uint64
}

func (h outerLock) String() string { return fmt.Sprintf("%d %q", h.token, h.name) }

// surroundingLocks parses the variable. It skips lines that it cannot parse.
func surroundingLocks(variable string) []outerLock {
	var held []outerLock
	for line := range strings.Lines(variable) {
		number, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		token, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			continue
		}
		if name, err := strconv.Unquote(quoted); err == nil {
			held = append(held, outerLock{name, token})
		}
	}
	return held
}

// refuseReentry fails if a surrounding run still holds one of the locks. It asks the
// cluster, because the variable may come from a run that has ended or lost its lock.
func (a *app) refuseReentry(ctx context.Context, c *client.Client, names ...string) error {
	variable, _ := a.lookup(heldVariable)
	held := surroundingLocks(variable)
	for _, name := range names {
		for _, h := range held {
			if h.name != name {
				continue
			}
			info, err := c.Get(ctx, name)
			if err != nil {
				return err
			}
			for _, holder := range info.Holders {
				if holder.Token == h.token {
					return hinted(usageError("lock %q: is held by the surrounding `locknode run`, token %d, so the wait would never end", name, h.token),
						"the command runs under this lock already: leave the inner lock out, or use another one")
				}
			}
		}
	}
	return nil
}
