package client

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Texts that others have written reach logs and terminals in errors.
func TestErrorsCanBePrinted(t *testing.T) {
	const bad = "\x1b[2J\u202eevil\nlocknode: all is well\u009b31m\xff"
	from := apiv1.NewError(apiv1.CodeInternal, "%s", bad)
	w := what{"lock", bad}
	for name, err := range map[string]error{
		"lost":        &LostError{Lock: bad, Token: 1, Reason: LostForced, Who: bad, Why: bad},
		"busy":        &BusyError{Lock: bad, Holders: []HolderInfo{{Holder: bad}}},
		"timeout":     &TimeoutError{Lock: bad, Holders: []HolderInfo{{Holder: bad}}},
		"unavailable": &UnavailableError{Op: w.String(), Endpoints: []string{bad}, Last: errors.New(bad), Cause: errors.New(bad)},
		"cluster":     newError(w, from),
		"cause":       &opError{op: w.String(), cause: errors.New(bad)},
		"wire":        from,
	} {
		text := err.Error()
		if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !strings.Contains(text, "evil") {
			t.Errorf("%s: %q cannot be printed at byte %d, or lacks a part", name, text, i)
		}
		var own *apiv1.Error
		if errors.As(err, &own) && strings.ContainsFunc(own.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: wraps %q, which cannot be printed", name, own.Error())
		}
	}
}
