package events

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Digest stands for what the model decides, as 16 hexadecimal digits: two
// descriptions that decide alike have the same. Nodes compare theirs by it.
func (m *Model) Digest() string {
	sorted := func(list []string) []string {
		list = append([]string{}, list...)
		slices.Sort(list)
		return slices.Compact(list)
	}
	b, err := json.Marshal(struct {
		Covers  map[string][]string // with all that is covered through others
		Types   map[string]string
		Admin   string
		Reads   []string
		Lasting []string
	}{m.onResource, m.types, m.admin, sorted(m.reads), sorted(m.lasting)})
	if err != nil {
		panic(err) // there is nothing in it but text
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
