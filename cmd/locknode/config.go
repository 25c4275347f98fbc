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

// origin is a value before anybody has understood it, and where it stood.
type origin struct {
	values []string
	source string // such as "flag --timing", "LOCKNODE_TIMING", "locknode.yaml:3"
	flag   bool   // it is a flag's
	file   string // it stands in this file
}

// resolved is a setting with the value that won.
type resolved struct {
	*setting
	origin
}

// fault is one thing that is wrong in a configuration.
type fault struct {
	source, key, value string
	allowed            error
}

func (f *fault) Error() string {
	if f.key == "" {
		return fmt.Sprintf("%s: %v", f.source, f.allowed)
	}
	return fmt.Sprintf("%s: %s: %q: %v", f.source, f.key, f.value, f.allowed)
}

// resolve finds the value of every setting and reports every fault at once:
// a value that loses against another source is checked as well, because it will
// win one day.
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
				err = fmt.Errorf("other users of the machine see a command line: put the value into a file and give --%s-file, or set %s", s.flag(), s.environment())
			}
			if err != nil {
				faults = append(faults, &fault{o.source, s.key, s.show(o.values), err})
			}
			won = *o
		}
		if err := s.set(&c, won.values); err != nil {
			s.reset(&c) // it is told above; what else is wrong is looked for without it
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

// together finds what is wrong with settings beside each other. That there is no data
// directory is left to the command.
func together(c serveConfig) error {
	c.node.DataDir = cmp.Or(c.node.DataDir, ".")
	return errors.Join(c.node.Validate(), oneGossipKey(c))
}

// show is how values are written where people see them.
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

// environmentOrigin takes a variable that is set but empty as not set.
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

// rawValue keeps what a flag was given, so that all faults are found at once,
// after parsing, and not the first of them during it.
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

// addSettingFlags gives every setting its flag.
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

// fileOrigins reads the settings of a YAML file; no path, no settings.
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
		return nil, fmt.Errorf("read configuration %s: one YAML document is allowed, another follows it", path)
	}
	r := &fileReader{path: path, all: all, found: map[string]*origin{}}
	r.mapping("", doc.Content[0])
	for _, o := range r.found {
		o.file = path
	}
	return r.found, errors.Join(r.faults...)
}

// fileReader walks the YAML tree and collects settings and faults.
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
			r.fault(n, "%q: settings are allowed here, written as key: value", n.Value)
		}
		return
	}
	seen := map[string]int{} // key → line
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolveAlias(n.Content[i+1])
		name := prefix + key.Value
		if line, twice := seen[name]; twice {
			r.fault(key, "%s: stands in line %d already", printable(name), line)
			continue
		}
		seen[name] = key.Line
		if name == "limits" {
			r.mapping("limits.", value)
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
		r.fault(value, "%s: a list of values is allowed", name)
	default:
		r.fault(value, "%s: one value is allowed", name)
	}
}

func (r *fileReader) sequence(name string, list *yaml.Node) {
	o := &origin{source: r.source(list)}
	for _, item := range list.Content {
		item = resolveAlias(item)
		if item.Kind != yaml.ScalarNode {
			r.fault(item, "%s: a list of values is allowed", name)
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

// printable quotes a key that would not be one line of plain text.
func printable(key string) string {
	if strings.ContainsFunc(key, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(key)
	}
	return key
}

// suggestion names the key that was probably meant.
func (r *fileReader) suggestion(name string) string {
	best, distance := "", 4 // more edits than three are no typing error
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

// edits is the Levenshtein distance.
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

// printConfig writes the configuration as a file that can be read again, with where each
// value came from. Secrets are comments that say that they are set.
func printConfig(w io.Writer, all []resolved) error {
	var b strings.Builder
	limits := false
	for _, r := range all {
		key, indent := r.key, ""
		if rest, ok := strings.CutPrefix(key, "limits."); ok {
			if !limits {
				limits = true
				b.WriteString("limits:\n")
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
	// What cannot be printed stands in double quotes, where YAML has the same escapes.
	_, err := io.WriteString(w, quote.Page(b.String()))
	return err
}

func (r *resolved) yaml() (string, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range r.values {
		scalar := &yaml.Node{Kind: yaml.ScalarNode, Value: v}
		if v == "" || v == "~" || strings.EqualFold(v, "null") {
			scalar.Style = yaml.DoubleQuotedStyle // or it would be read as nothing
		}
		if printable(v) != v {
			scalar.Style = yaml.DoubleQuotedStyle // or it might take several lines, and the comment be part of it
		}
		n.Content = append(n.Content, scalar)
	}
	if !r.list {
		n = n.Content[0]
	}
	b, err := yaml.Marshal(n)
	return strings.TrimSpace(string(b)), err
}
