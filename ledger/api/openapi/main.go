// Command openapi writes the API's description to openapi.json in the current
// folder.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"

	"github.com/tokenledger/tokenledger/ledger/api"
)

func main() {
	b, err := api.Description()
	if err != nil {
		log.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b, "", "  "); err != nil {
		log.Fatal(err)
	}
	pretty.WriteByte('\n')
	if err := os.WriteFile("openapi.json", pretty.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}
