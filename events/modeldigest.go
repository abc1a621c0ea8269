package events

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Digest returns a digest of the model, 16 hexadecimal digits. Models with the same
// decisions have the same digest. Nodes use it to compare their models.
func (m *Model) Digest() string {
	sorted := func(list []string) []string {
		list = append([]string{}, list...)
		slices.Sort(list)
		return slices.Compact(list)
	}
	b, err := json.Marshal(struct {
		Covers  map[string][]string // including indirect inclusions
		Types   map[string]string
		Admin   string
		Reads   []string
		Lasting []string
	}{m.onResource, m.types, m.admin, sorted(m.reads), sorted(m.lasting)})
	if err != nil {
		panic(err) // the struct has only texts
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
