package node

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/verifier/proxy"
)

// File is the content of a configuration file: values of flags, by the flags'
// names, and settings that have no flag.
type File struct {
	Flags          map[string]string
	Policies       map[string]proxy.Policy
	TrustedProxies []netip.Prefix
	// Stale: permission -> how long after the end of its lease the node still
	// answers for it.
	Stale map[string]time.Duration
	// Model is the permission model that the file defines, or nil. The name of a
	// built-in model is among the flags.
	Model *events.Model
}

// ReadFile reads a configuration file in YAML. Unknown keys are errors: with a
// misspelt key the default would silently apply.
func ReadFile(path string, flags []string) (File, error) {
	content, err := os.ReadFile(path)
	var raw map[string]any
	var nodes map[string]yaml.Node // the same, with lines
	if err == nil {
		err = yaml.Unmarshal(content, &raw)
	}
	if err == nil {
		err = yaml.Unmarshal(content, &nodes)
	}
	if err != nil {
		return File{}, fmt.Errorf("configuration file %s: %w", path, withoutValue(err))
	}
	f := File{Flags: map[string]string{}}
	var problems []error
	bad := func(format string, args ...any) {
		problem := withoutValue(fmt.Errorf(format, args...))
		problems = append(problems, fmt.Errorf("configuration file %s: %w", path, problem))
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		name := strings.ReplaceAll(key, "_", "-")
		switch {
		case key == "policies":
			if err := strictly(nodes[key], &f.Policies); err != nil {
				bad("policies: %w", err)
			}
		case key == "trusted_proxies":
			var err error
			if f.TrustedProxies, err = networks(raw[key]); err != nil {
				bad("trusted_proxies: %w", err)
			}
		case key == "stale":
			var err error
			if f.Stale, err = staleTimes(raw[key]); err != nil {
				bad("stale: %w", err)
			}
		case key == "model" && isMap(raw[key]):
			var err error
			if f.Model, err = describedModel(nodes[key]); err != nil {
				bad("model: %w", err)
			}
		case slices.Contains(flags, name):
			value, ok := flagValue(raw[key])
			if !ok {
				bad("%s: want text, a number, or a list of them", key)
			}
			if _, twice := f.Flags[name]; twice {
				bad("%s is set twice, with _ and with -", name)
			}
			f.Flags[name] = value
		default:
			bad("%s is not known; known are %s, policies, stale and trusted_proxies",
				events.Quote(key), strings.ReplaceAll(strings.Join(flags, ", "), "-", "_"))
		}
	}
	return f, errors.Join(problems...)
}

// isMap reports whether a value is a map, and not just a name.
func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// describedModel reads the definition of a permission model.
func describedModel(n yaml.Node) (*events.Model, error) {
	var spec events.ModelSpec
	if err := strictly(n, &spec); err != nil {
		return nil, err
	}
	return events.NewModel(spec)
}

// staleTimes reads a map from permissions to times.
func staleTimes(v any) (map[string]time.Duration, error) {
	entries, ok := v.(map[string]any)
	if !ok || len(entries) == 0 {
		return nil, errors.New("want permissions and times, as in track: 5m")
	}
	out := map[string]time.Duration{}
	for permission, v := range entries {
		text, ok := v.(string)
		d, err := time.ParseDuration(text)
		if !ok || err != nil || d <= 0 {
			return nil, fmt.Errorf("%s: want a time such as 5m", events.Quote(permission))
		}
		out[permission] = d
	}
	return out, nil
}

// flagValue returns the text of a value for a flag. The entries of a list are
// joined by commas.
func flagValue(v any) (string, bool) {
	switch v := v.(type) {
	case string, bool, int, int64, uint64, float64:
		return fmt.Sprint(v), true
	case []any:
		var entries []string
		for _, e := range v {
			entry, ok := flagValue(e)
			if _, nested := e.([]any); nested || !ok {
				return "", false
			}
			entries = append(entries, entry)
		}
		return strings.Join(entries, ","), len(entries) > 0
	}
	return "", false
}

// networks reads a list of networks.
func networks(v any) (list []netip.Prefix, _ error) {
	entries, _ := v.([]any)
	if len(entries) == 0 {
		return nil, errors.New("want a list of networks")
	}
	var problems []error
	for _, e := range entries {
		text := fmt.Sprint(e)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s is not a network such as 10.0.0.0/8", events.Quote(text)))
		}
		list = append(list, p)
	}
	return list, errors.Join(problems...)
}

// strictly decodes a YAML value and refuses unknown names.
func strictly(from yaml.Node, into any) error {
	// A value of the wrong kind is named by its line in the file. Unknown names are
	// found in a copy of the value alone, which has other lines.
	err := from.Decode(into)
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		return errors.New(strings.Join(e.Errors, "; "))
	}
	var value any
	if err == nil {
		err = from.Decode(&value)
	}
	var text []byte
	if err == nil {
		text, err = yaml.Marshal(value)
	}
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err = d.Decode(into)
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		return errors.New(lineOf.ReplaceAllString(strings.Join(e.Errors, "; "), ""))
	}
	return err
}

var lineOf = regexp.MustCompile(`\bline [0-9]+: `)

// shownValue matches the part of a YAML error that repeats a value of the file.
var shownValue = regexp.MustCompile("(cannot unmarshal !+[a-z]+) `[^`]*`")

// withoutValue leaves out of an error what stands in the file: it may be a secret.
func withoutValue(err error) error {
	text := err.Error()
	switch hidden := shownValue.ReplaceAllString(text, "$1"); {
	case events.LooksSecret(hidden):
		return errors.New("a key or a value looks like a secret, stands in a wrong place, and is not repeated here")
	case hidden != text:
		return errors.New(hidden)
	}
	return err
}
