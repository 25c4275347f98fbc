package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/locknode/locknode/internal/quote"
)

// A value comes from one of these places; the first that has it wins.
//
//	flag         --data-dir /var/lib/locknode
//	environment  LOCKNODE_DATA_DIR=/var/lib/locknode
//	file         data_dir: /var/lib/locknode

// origin is a value as text, and where it comes from.
type origin struct {
	values []string
	source string // such as "flag --timing", "LOCKNODE_TIMING", "locknode.yaml:3"
	flag   bool   // it comes from a flag
	file   string // the file that it comes from; empty: another source
}

// resolved is a setting with the value that won.
type resolved struct {
	*setting
	origin
}

// fault is one error in a configuration.
type fault struct {
	source, key, value string
	allowed            error // what the value must be, or what is wrong with it
}

func (f *fault) Error() string {
	if f.key == "" {
		return fmt.Sprintf("%s: %v", f.source, f.allowed)
	}
	return fmt.Sprintf("%s: %s: %v", f.source, f.key, wrong(f.value, f.allowed))
}

// wrong returns an error that says what a value is and, with allowed, what it must be or
// what is wrong with it.
func wrong(value string, allowed error) error {
	if strings.HasPrefix(allowed.Error(), "must ") {
		return fmt.Errorf("is %q, %w", value, allowed)
	}
	return fmt.Errorf("is %q: %w", value, allowed)
}

// resolve finds the value of every setting and reports all faults at once. A value that
// another source overrides is checked as well: it would take effect once the other is
// removed.
func resolve(flags *pflag.FlagSet, lookup func(string) (string, bool)) (serveConfig, []resolved, error) {
	var c serveConfig
	var faults []error
	all := settings()
	fromFile, err := fileOrigins(configPath(flags, lookup), all)
	faults = append(faults, err)
	var out []resolved
	for _, s := range all {
		won := origin{values: []string{s.def}, source: "default"}
		if s.list && s.def == "" {
			won.values = nil
		}
		for _, o := range []*origin{fromFile[s.key], environmentOrigin(s, lookup), flagOrigin(s, flags)} {
			if o == nil {
				continue
			}
			var scratch serveConfig
			err := s.set(&scratch, o.values)
			if s.secret && o.flag && strings.Join(o.values, "") != "" {
				err = fmt.Errorf("must not be on the command line, which other users of the machine can read: put the value into a file and give --%s-file, or set %s", s.flag(), s.environment())
			}
			if err != nil {
				faults = append(faults, &fault{o.source, s.key, s.show(o.values), err})
			}
			won = *o
		}
		if err := s.set(&c, won.values); err != nil {
			s.reset(&c) // the fault is reported above; the other checks run with the default
		}
		out = append(out, resolved{s, won})
	}
	return c, out, errors.Join(faults...)
}

// reset sets a setting to its default.
func (s *setting) reset(c *serveConfig) {
	values := []string{s.def}
	if s.list && s.def == "" {
		values = nil
	}
	if err := s.set(c, values); err != nil {
		panic(fmt.Sprintf("the default of %s, %q, is refused: %v", s.key, values, err))
	}
}

// together checks settings against each other. A missing data directory is reported by the
// command.
func together(c serveConfig) error {
	c.node.DataDir = cmp.Or(c.node.DataDir, ".")
	return errors.Join(c.node.Validate(), oneGossipKey(c), auditFault(c))
}

// show returns values as they are printed: a secret is replaced.
func (s *setting) show(values []string) string {
	if s.secret && strings.Join(values, "") != "" {
		return "(secret)"
	}
	return strings.Join(values, ",")
}

func configPath(flags *pflag.FlagSet, lookup func(string) (string, bool)) string {
	if f := flags.Lookup("config"); f != nil && f.Changed {
		return f.Value.String()
	}
	path, _ := lookup("LOCKNODE_CONFIG")
	return path
}

func flagOrigin(s *setting, flags *pflag.FlagSet) *origin {
	f := flags.Lookup(s.flag())
	if f == nil || !f.Changed {
		return nil
	}
	return &origin{values: f.Value.(*rawValue).values, source: "flag --" + s.flag(), flag: true}
}

// environmentOrigin treats a variable that is empty as not set.
func environmentOrigin(s *setting, lookup func(string) (string, bool)) *origin {
	v, ok := lookup(s.environment())
	if !ok || v == "" {
		return nil
	}
	values := []string{v}
	if s.list {
		values = splitList(v)
	}
	return &origin{values: values, source: s.environment()}
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}

// rawValue keeps the text of a flag, which is checked after parsing: so all faults are
// reported at once, and not only the first.
type rawValue struct {
	setting *setting
	values  []string
}

func (r *rawValue) String() string {
	if r.setting == nil {
		return ""
	}
	return strings.Join(r.values, ",")
}
func (r *rawValue) Type() string { return r.setting.kind }
func (r *rawValue) Set(v string) error {
	if r.setting.list {
		r.values = append(r.values, splitList(v)...)
	} else {
		r.values = []string{v}
	}
	return nil
}

// addSettingFlags adds a flag for every setting.
func addSettingFlags(flags *pflag.FlagSet) {
	for _, s := range settings() {
		f := flags.VarPF(&rawValue{setting: s}, s.flag(), "", s.usage)
		f.DefValue = s.def
		f.Hidden = s.tuning
		if s.kind == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// fileOrigins reads the settings of a YAML file. Without a path there are none.
func fileOrigins(path string, all []*setting) (map[string]*origin, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil // nothing but comments
		}
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read configuration %s: has several YAML documents, must have one", path)
	}
	r := &fileReader{path: path, all: all, found: map[string]*origin{}}
	r.mapping("", doc.Content[0])
	for _, o := range r.found {
		o.file = path
	}
	return r.found, errors.Join(r.faults...)
}

// sections are the keys of a file below which there are settings.
var sections = []string{"tls", "auth", "audit", "quota", "debug", "limits"}

// fileReader walks a YAML tree and collects settings and faults.
type fileReader struct {
	path   string
	all    []*setting
	found  map[string]*origin // setting → value
	faults []error
}

func (r *fileReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, &fault{source: r.source(n), allowed: fmt.Errorf(format, args...)})
}

func (r *fileReader) source(n *yaml.Node) string { return fmt.Sprintf("%s:%d", r.path, n.Line) }

// mapping reads one level of keys, each after prefix.
func (r *fileReader) mapping(prefix string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		if n.Tag != "!!null" {
			r.fault(n, "is %q, must be settings, written as key: value", n.Value)
		}
		return
	}
	seen := map[string]int{} // key → line
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolveAlias(n.Content[i+1])
		name := prefix + key.Value
		if line, twice := seen[name]; twice {
			r.fault(key, "%s: is already set in line %d", printable(name), line)
			continue
		}
		seen[name] = key.Line
		if prefix == "" && slices.Contains(sections, name) {
			r.mapping(name+".", value)
			continue
		}
		r.value(name, key, value)
	}
}

func (r *fileReader) value(name string, key, value *yaml.Node) {
	i := slices.IndexFunc(r.all, func(s *setting) bool { return s.key == name })
	if i < 0 {
		r.fault(key, "unknown key %s%s", printable(name), r.suggestion(name))
		return
	}
	s := r.all[i]
	switch {
	case value.Tag == "!!null": // not set
	case value.Kind == yaml.ScalarNode && s.list:
		r.found[name] = &origin{values: splitList(value.Value), source: r.source(value)}
	case value.Kind == yaml.ScalarNode:
		r.found[name] = &origin{values: []string{value.Value}, source: r.source(value)}
	case value.Kind == yaml.SequenceNode && s.list:
		r.sequence(name, value)
	case s.list:
		r.fault(value, "%s: must be a list of values", name)
	default:
		r.fault(value, "%s: must be one value", name)
	}
}

func (r *fileReader) sequence(name string, list *yaml.Node) {
	o := &origin{source: r.source(list)}
	for _, item := range list.Content {
		item = resolveAlias(item)
		if item.Kind != yaml.ScalarNode {
			r.fault(item, "%s: must be a list of values", name)
			return
		}
		o.values = append(o.values, item.Value)
	}
	r.found[name] = o
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// printable quotes text that has characters which cannot be printed.
func printable(key string) string {
	if strings.ContainsFunc(key, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(key)
	}
	return key
}

// suggestion names the known key that is most similar, if one is similar enough.
func (r *fileReader) suggestion(name string) string {
	best, distance := "", 4 // more than three edits are not a typing error
	for _, s := range r.all {
		if d := edits(name, s.key); d < distance {
			best, distance = s.key, d
		}
	}
	if best == "" {
		return "; `locknode serve --print-config` prints all keys"
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// edits returns the Levenshtein distance of a and b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// printConfig writes the configuration as a file that can be read again. A comment says
// where each value comes from. A secret is only a comment, which says that it is set.
func printConfig(w io.Writer, all []resolved) error {
	var b strings.Builder
	current := "" // the section
	for _, r := range all {
		key, indent := r.key, ""
		if section, rest, ok := strings.Cut(key, "."); ok {
			if section != current {
				current = section
				b.WriteString(section + ":\n")
			}
			key, indent = rest, "  "
		}
		if r.secret && strings.Join(r.values, "") != "" {
			fmt.Fprintf(&b, "%-44s # %s\n", "# "+indent+key+": set, and not shown", quote.Text(r.source))
			continue
		}
		value, err := r.yaml()
		if err != nil {
			return fmt.Errorf("print %s: %w", r.key, err)
		}
		fmt.Fprintf(&b, "%-44s # %s\n", indent+key+": "+value, quote.Text(r.source))
	}
	// Text that cannot be printed is in double quotes, where YAML has the same escapes.
	_, err := io.WriteString(w, quote.Page(b.String()))
	return err
}

func (r *resolved) yaml() (string, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range r.values {
		scalar := &yaml.Node{Kind: yaml.ScalarNode, Value: v}
		if v == "" || v == "~" || strings.EqualFold(v, "null") {
			scalar.Style = yaml.DoubleQuotedStyle // otherwise it would be read as null
		}
		if printable(v) != v {
			scalar.Style = yaml.DoubleQuotedStyle // otherwise it could take several lines and include the comment
		}
		n.Content = append(n.Content, scalar)
	}
	if !r.list {
		n = n.Content[0]
	}
	b, err := yaml.Marshal(n)
	return strings.TrimSpace(string(b)), err
}
