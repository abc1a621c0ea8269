package verifier

import _ "embed"

// Description is the OpenAPI 3.1 description of the verifier's HTTP API. A test
// compares it with the types and limits here.
//
//go:embed openapi.json
var Description []byte
