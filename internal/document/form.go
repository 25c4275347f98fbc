package document

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Span returns a duration as text and in whole milliseconds. It is rounded down, so that a
// program that relies on it does not count on more time than there is; a negative one is 0.
func Span(d time.Duration) (text string, ms int64) {
	d = max(0, d).Truncate(time.Millisecond)
	return d.String(), d.Milliseconds()
}

// SetValue sets the stored value: as text if it is UTF-8, otherwise in base64.
func (h *Holder) SetValue(value []byte) {
	switch text := string(value); {
	case text == "":
	case utf8.ValidString(text):
		h.Value = &text
	default:
		h.ValueBase64 = base64.StdEncoding.EncodeToString(value)
	}
}

func hexadecimal(n uint64) string { return fmt.Sprintf("%016x", n) }

// LimitText returns the value of a limit for people, in a form that "limits set" accepts.
func LimitText(name string, value int64, duration bool) string {
	switch {
	case duration:
		return ShortDuration(time.Duration(value))
	case name == "table_bytes":
		return Bytes(value)
	}
	return strconv.FormatInt(value, 10)
}

// ShortDuration returns a duration without the zeros at its end: 24h, not 24h0m0s.
func ShortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Unit is a unit of sizes.
type Unit struct {
	Name string
	Size int64
}

// Units are the units of sizes; the first four are powers of 1024, the largest first.
var Units = []Unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// Bytes returns a size in the largest unit, of the powers of 1024, in which it is a whole
// number.
func Bytes(n int64) string {
	for _, u := range Units[:4] {
		if n != 0 && n%u.Size == 0 {
			return strconv.FormatInt(n/u.Size, 10) + u.Name
		}
	}
	return strconv.FormatInt(n, 10)
}
