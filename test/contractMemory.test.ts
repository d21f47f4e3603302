import * as MemoryLedger from "../src/MemoryLedger.js"
import { suite } from "./contract/index.js"

suite("memory", { layer: () => MemoryLedger.layer, consumers: () => MemoryLedger.layer })
