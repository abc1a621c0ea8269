package node

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

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
	k := koanf.New("/") // so that keys with dots are not split
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return File{}, fmt.Errorf("configuration file %s: %w", path, err)
	}
	f := File{Flags: map[string]string{}}
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("configuration file %s: "+format, append([]any{path}, args...)...))
	}
	raw := k.Raw()
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		name := strings.ReplaceAll(key, "_", "-")
		switch {
		case key == "policies":
			if err := strictly(raw[key], &f.Policies); err != nil {
				bad("policies: %w", err)
			}
		case key == "trusted_proxies":
			for _, s := range k.Strings(key) {
				p, err := netip.ParsePrefix(s)
				if err != nil {
					bad("trusted_proxies: %s is not a network such as 10.0.0.0/8", events.Quote(s))
				}
				f.TrustedProxies = append(f.TrustedProxies, p)
			}
			if len(k.Strings(key)) == 0 {
				bad("trusted_proxies: want a list of networks")
			}
		case key == "stale":
			var err error
			if f.Stale, err = staleTimes(raw[key]); err != nil {
				bad("stale: %w", err)
			}
		case key == "model" && isMap(raw[key]):
			var err error
			if f.Model, err = describedModel(raw[key]); err != nil {
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
func describedModel(v any) (*events.Model, error) {
	var spec events.ModelSpec
	if err := strictly(v, &spec); err != nil {
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

// strictly decodes a YAML value and refuses unknown names.
func strictly(from, into any) error {
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{Result: into, ErrorUnused: true, TagName: "koanf"})
	if err != nil {
		return err
	}
	return d.Decode(from)
}
