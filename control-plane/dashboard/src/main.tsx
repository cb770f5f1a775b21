// Where the page starts.
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/parts.css";
import "./styles/map.css";
import "./styles/explain.css";
import "./styles/hops.css";
import "./styles/live.css";
import "./styles/edit.css";
import "./styles/standing.css";
import { App } from "./app";
import { connect } from "./state/store";
import { applyKeptTheme } from "./theme";

applyKeptTheme();
connect("v1/mesh/events");
const root = document.getElementById("app");
if (root === null) throw new Error("index.html has no element #app");
render(<App />, root);
