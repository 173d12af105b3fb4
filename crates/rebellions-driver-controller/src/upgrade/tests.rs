mod cost;
mod guide;
mod messages;
mod model;
mod properties;
mod scene;
mod steps;
mod world;
