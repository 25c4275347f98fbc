package secure

import "fmt"

// Mode says what a node does with TLS.
type Mode string

// The modes. The zero value is Off.
const (
	Off        Mode = "off"        // plain text only
	Permissive Mode = "permissive" // TLS and plain text, to move a running cluster
	Required   Mode = "required"   // TLS only
)

// ParseMode returns the mode with a name; "" is Off.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return Off, nil
	case Off, Permissive, Required:
		return m, nil
	}
	return Off, fmt.Errorf("is %q, must be off, permissive or required", name)
}

// On reports whether TLS is used at all.
func (m Mode) On() bool { return m == Permissive || m == Required }
